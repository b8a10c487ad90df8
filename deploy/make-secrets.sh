#!/usr/bin/env bash
# Makes the secrets of an installation, once: a certificate authority with a server certificate for
# the broker, and for each of the two users an nkey and an S3 key. Needs OpenSSL 3 and Python 3; macOS's own
# openssl is LibreSSL: `brew install openssl@3`, which is found where Homebrew puts it, or name one in OPENSSL.
#
#   deploy/make-secrets.sh DIR HOST...         HOST: names and addresses under which clients reach the broker
#   deploy/make-secrets.sh renew DIR [HOST...] a new server certificate by the same authority, for the same
#                                              names unless others are given: clients go on as they are
#
# Writes DIR/ca.crt tls.crt tls.key    for the broker; clients need ca.crt
#        DIR/ca.key                    signs the next certificate: keep it, and give it to no machine
#        DIR/coordinator.nk worker.nk  seeds, each for its user only
#        DIR/nats.env                  COORDINATOR_NKEY and WORKER_NKEY, the public keys, for the broker
#        DIR/coordinator.s3.env worker.s3.env   AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: put your
#                                      cloud's keys there, or leave them to SeaweedFS with
#        DIR/s3.json                   the two users for SeaweedFS, after deploy/s3/seaweedfs.json
set -euo pipefail

usage() { sed -n '2,19s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
fail() { echo "make-secrets: $*" >&2; exit 1; }

renew=
if [[ ${1:-} == renew ]]; then
  renew=1
  shift
  [[ $# -ge 1 ]] || usage
else
  [[ $# -ge 2 ]] || usage
fi
dir=$1
shift

openssl=
for candidate in ${OPENSSL:+"$OPENSSL"} openssl {/opt/homebrew,/usr/local}/opt/openssl@3/bin/openssl; do
  found=$("$candidate" version 2>/dev/null) || continue
  # Before 3.0 `req` signs for no authority.
  [[ $found =~ ^OpenSSL\ ([3-9]|[1-9][0-9])\. ]] && { openssl=$candidate; break; }
  other=${other:-$found}
done
[[ -n $openssl ]] || fail "needs OpenSSL 3, found ${other:-no openssl}: on macOS brew install openssl@3;" \
  "elsewhere name one: OPENSSL=/path/to/openssl $0 ..."

if [[ -n $renew ]]; then
  [[ -e $dir/ca.crt ]] || fail "$dir/ca.crt does not exist: $dir is no folder that this made"
  [[ -e $dir/ca.key ]] || fail "$dir/ca.key does not exist, and only it can sign: make new secrets in another folder," \
    "and replace them everywhere (deploy/RUNBOOK.md)"
elif [[ -e $dir/ca.crt ]]; then
  fail "$dir/ca.crt exists; new keys would lock out who holds the old ones: choose another folder," \
    "or take \`renew\` for a new certificate by the same authority"
fi
umask 077
mkdir -p "$dir"

quietly() { # openssl chats on stderr: shown only when it fails
  local said
  said=$("$@" 2>&1) || { printf '%s\n' "$said" >&2; return 1; }
}
names=
for host in "$@"; do
  kind=DNS
  [[ $host =~ ^[0-9.]+$ || $host == *:* ]] && kind=IP
  names+=${names:+,}$kind:$host
done
if [[ -z $names ]]; then
  # As openssl shows them: `DNS:nats, IP Address:127.0.0.1`.
  names=$("$openssl" x509 -in "$dir/tls.crt" -noout -ext subjectAltName | sed -n '2{s/^ *//; s/IP Address:/IP:/g; s/, /,/g; p;}')
fi
first=${names%%,*}

new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
if [[ -z $renew ]]; then
  quietly "$openssl" req -x509 "${new_key[@]}" -days 3650 -subj "/CN=Bakeoff broker CA" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
    -keyout "$dir/ca.key" -out "$dir/ca.crt"
fi
# Renamed when both are whole, so that nobody finds a certificate with another's key.
quietly "$openssl" req -x509 "${new_key[@]}" -days 825 -subj "/CN=${first#*:}" \
  -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
  -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth \
  -addext "subjectAltName=$names" -keyout "$dir/tls.key.new" -out "$dir/tls.crt.new"
mv "$dir/tls.key.new" "$dir/tls.key"
mv "$dir/tls.crt.new" "$dir/tls.crt"
if [[ -n $renew ]]; then
  until=$("$openssl" x509 -in "$dir/tls.crt" -noout -enddate)
  echo "make-secrets: $dir/tls.crt is for ${names//,/ } until ${until#notAfter=}; put it and tls.key before the broker" >&2
  exit
fi

OPENSSL=$openssl python3 - "$dir" "$(dirname "${BASH_SOURCE[0]}")/s3/seaweedfs.json" <<'PY'
import base64, binascii, json, os, pathlib, secrets, subprocess, sys

# An nkey is an Ed25519 key in base32, with a prefix that names its role and a CRC-16 behind it.
USER, SEED = 20 << 3, 18 << 3


def encode(prefix, key):
    body = prefix + key
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")


def openssl(*arguments, data=b""):
    return subprocess.run([os.environ["OPENSSL"], *arguments], input=data, stdout=subprocess.PIPE, check=True).stdout


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
