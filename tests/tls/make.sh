#!/bin/sh
# Makes the certificates of the tests anew. They are committed, so that a test needs no openssl;
# nobody but the tests trusts them. All but `expired` are valid from 2020 to 2120.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
touch "$work/index"
cat > "$work/config" <<END
[ca]
default_ca = it
[it]
database = $work/index
new_certs_dir = $work
certificate = ca.pem
private_key = $work/ca.key.pem
default_md = sha256
policy = any
rand_serial = yes
unique_subject = no
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost,IP:127.0.0.1
extendedKeyUsage = serverAuth
[authority]
basicConstraints = critical,CA:TRUE
END

signed() { # NAME FROM TO EXTENSIONS [OPTIONS]: the certificate of NAME.key.pem
  name=$1 from=$2 to=$3 extensions=$4; shift 4
  openssl req -new -key "${key:-$name.key.pem}" -subj "/CN=$name" -out "$work/csr"
  openssl ca -batch -notext -config "$work/config" -extensions "$extensions" -in "$work/csr" \
    -startdate "${from}0101000000Z" -enddate "${to}0101000000Z" -out "$name.pem" "$@" 2>/dev/null
}
ec() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

ec "$work/ca.key.pem"
key=$work/ca.key.pem signed ca 2020 2120 authority -selfsign
for name in first second; do ec $name.key.pem; signed $name 2020 2120 names; done
openssl genpkey -algorithm ED25519 -out ed25519.key.pem; signed ed25519 2020 2120 names
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out weak.key.pem
signed weak 2020 2120 names
ec expired.key.pem; signed expired 2020 2021 names
openssl pkey -in first.key.pem -aes128 -passout pass:secret -out encrypted.key.pem
