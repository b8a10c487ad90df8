#!/usr/bin/env bash
# Makes the secrets of an installation, once: a certificate authority with a server certificate for
# the broker, and for each of the two users an nkey and an S3 key. Needs openssl 3 and Python 3.
#
#   deploy/make-secrets.sh DIR HOST...     HOST: names and addresses under which clients reach the broker
#
# Writes DIR/ca.crt tls.crt tls.key    for the broker; clients need ca.crt
#        DIR/coordinator.nk worker.nk  seeds, each for its user only
#        DIR/nats.env                  COORDINATOR_NKEY and WORKER_NKEY, the public keys, for the broker
#        DIR/coordinator.s3.env worker.s3.env   AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: put your
#                                      cloud's keys there, or leave them to SeaweedFS with
#        DIR/s3.json                   the two users for SeaweedFS, after deploy/s3/seaweedfs.json
set -euo pipefail

if [[ $# -lt 2 ]]; then
  sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
dir=$1
shift
if [[ -e $dir/ca.crt ]]; then
  echo "make-secrets: $dir/ca.crt exists; new keys would lock out who holds the old ones: choose another folder" >&2
  exit 1
fi
umask 077
mkdir -p "$dir"

names=
for host in "$@"; do
  kind=DNS
  [[ $host =~ ^[0-9.]+$ || $host == *:* ]] && kind=IP
  names+=${names:+,}$kind:$host
done

quietly() { # openssl chats on stderr: shown only when it fails
  local said
  said=$("$@" 2>&1) || { printf '%s\n' "$said" >&2; return 1; }
}
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
quietly openssl req -x509 "${new_key[@]}" -days 3650 -subj "/CN=Bakeoff broker CA" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
  -keyout "$dir/ca.key" -out "$dir/ca.crt"
quietly openssl req -x509 "${new_key[@]}" -days 825 -subj "/CN=$1" \
  -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
  -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth \
  -addext "subjectAltName=$names" -keyout "$dir/tls.key" -out "$dir/tls.crt"
# Nothing else is ever signed: the authority's key would only be something to lose.
rm "$dir/ca.key"

python3 - "$dir" "$(dirname "${BASH_SOURCE[0]}")/s3/seaweedfs.json" <<'PY'
import base64, binascii, json, pathlib, secrets, subprocess, sys

# An nkey is an Ed25519 key in base32, with a prefix that names its role and a CRC-16 behind it.
USER, SEED = 20 << 3, 18 << 3


def encode(prefix, key):
    body = prefix + key
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")


def openssl(*arguments, data=b""):
    return subprocess.run(["openssl", *arguments], input=data, stdout=subprocess.PIPE, check=True).stdout


folder = pathlib.Path(sys.argv[1])
lines = []
for user in "coordinator", "worker":
    private = openssl("genpkey", "-algorithm", "ed25519", "-outform", "DER")
    public = openssl("pkey", "-inform", "DER", "-pubout", "-outform", "DER", data=private)
    # The raw key is the last 32 bytes of either encoding.
    prefix = bytes([SEED | USER >> 5, (USER & 31) << 3])
    (folder / f"{user}.nk").write_text(encode(prefix, private[-32:]) + "\n")
    lines.append(f"{user.upper()}_NKEY={encode(bytes([USER]), public[-32:])}\n")
(folder / "nats.env").write_text("".join(lines))

users = json.loads(pathlib.Path(sys.argv[2]).read_text())
for identity in users["identities"]:
    key, secret = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
    identity["credentials"] = [{"accessKey": key, "secretKey": secret}]
    text = f"AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={secret}\n"
    (folder / f"{identity['name']}.s3.env").write_text(text)
(folder / "s3.json").write_text(json.dumps(users, indent=2) + "\n")
PY
(cd "$dir" && echo "make-secrets: $dir holds" *) >&2
