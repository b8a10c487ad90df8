"""deploy/make-secrets.sh and k8s/secrets.sh: what is made, renewed, refused, and put into Secrets."""
import base64
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

import yaml

from manifests import REPOSITORY

MAKE = REPOSITORY / "deploy/make-secrets.sh"


def run(*words, code=0, **env):
    ended = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=os.environ | env)
    assert ended.returncode == code, f"{words}: exit code {ended.returncode}, not {code}\n{ended.stderr}"
    return ended


def x509(certificate, *what):
    return run("openssl", "x509", "-in", certificate, "-noout", *what).stdout


class Secrets(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.TemporaryDirectory()
        self.addCleanup(self.place.cleanup)
        self.folder = pathlib.Path(self.place.name) / "secrets"
        run(MAKE, self.folder, "nats", "nats.bakeoff.svc", "localhost", "127.0.0.1")

    def printed(self, *options):
        docs = yaml.safe_load_all(run(REPOSITORY / "k8s/secrets.sh", *options, self.folder).stdout)
        return {(doc["metadata"]["namespace"], doc["metadata"]["name"]): doc["data"] for doc in docs if doc}

    def test_nobody_else_reads_them(self):
        for file in self.folder.iterdir():
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)

    def test_the_authoritys_key_is_in_no_secret(self):
        key = (self.folder / "ca.key").read_bytes()
        for options in (), ("--broker-namespace", "nats"), ("--no-store-keys",):
            for name, data in self.printed(*options).items():
                for value in data.values():
                    self.assertNotIn(key.split(b"\n")[1], base64.b64decode(value), name)

    def test_a_renewed_certificate_is_the_same_authoritys_for_the_same_names(self):
        before = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        names = x509(self.folder / "tls.crt", "-ext", "subjectAltName")
        said = run(MAKE, "renew", self.folder).stderr
        self.assertIn("DNS:nats DNS:nats.bakeoff.svc DNS:localhost IP:127.0.0.1 until ", said)
        after = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        self.assertEqual({name for name in before if before[name] != after[name]}, {"tls.crt", "tls.key"})
        self.assertEqual(set(before), set(after))
        self.assertEqual(x509(self.folder / "tls.crt", "-ext", "subjectAltName"), names)
        run("openssl", "verify", "-CAfile", self.folder / "ca.crt", self.folder / "tls.crt")
        public = run("openssl", "pkey", "-in", self.folder / "tls.key", "-pubout").stdout
        self.assertEqual(x509(self.folder / "tls.crt", "-pubkey"), public)
        self.assertEqual(stat.S_IMODE((self.folder / "tls.key").stat().st_mode), 0o600)

    def test_other_names_can_be_given(self):
        run(MAKE, "renew", self.folder, "nats.nats.svc", "fd00::1")
        shown = x509(self.folder / "tls.crt", "-ext", "subjectAltName", "-subject")
        self.assertIn("DNS:nats.nats.svc, IP Address:FD00:0:0:0:0:0:0:1", shown)
        self.assertIn("CN = nats.nats.svc", shown)

    def test_what_would_lock_people_out_is_refused(self):
        self.assertIn("choose another folder", run(MAKE, self.folder, "nats", code=1).stderr)
        (self.folder / "ca.key").unlink()
        self.assertIn("only it can sign", run(MAKE, "renew", self.folder, code=1).stderr)
        self.assertIn("no folder that this made", run(MAKE, "renew", self.place.name, code=1).stderr)
        for wrong in (), ("renew",), (self.folder,):
            self.assertIn("deploy/make-secrets.sh DIR HOST", run(MAKE, *wrong, code=2).stderr)

    def test_another_openssl_is_told(self):
        programs = pathlib.Path(self.place.name) / "bin"
        programs.mkdir()
        (programs / "openssl").write_text("#!/bin/sh\necho LibreSSL 3.3.6\n")
        (programs / "openssl").chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        said = run(MAKE, f"{self.place.name}/other", "nats", code=1, PATH=path).stderr
        self.assertIn("found LibreSSL 3.3.6", said)
        self.assertIn("brew install openssl@3", said)
        real = run("sh", "-c", "command -v openssl").stdout.strip()
        run(MAKE, f"{self.place.name}/other", "nats", PATH=path, OPENSSL=real)

    def test_each_namespace_gets_its_own(self):
        everything = self.printed()
        self.assertEqual({namespace for namespace, _ in everything}, {"bakeoff"})
        self.assertEqual(len(everything), 7)
        apart = self.printed("--broker-namespace", "nats", "--no-store-keys")
        self.assertEqual(
            {name: set(data) for name, data in apart.items()},
            {
                ("nats", "nats-tls"): {"ca.crt", "tls.crt", "tls.key"},
                ("nats", "nats-public-keys"): {"coordinator", "worker"},
                ("bakeoff", "nats-tls"): {"ca.crt"},
                ("bakeoff", "nats-coordinator-seed"): {"seed"},
                ("bakeoff", "nats-worker-seed"): {"seed"},
            },
        )
        run(REPOSITORY / "k8s/secrets.sh", "--no-such-option", self.folder, code=2)


if __name__ == "__main__":
    unittest.main()
