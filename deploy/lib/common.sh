# Shared by the scripts in deploy/. Sourced, never run.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# as_root COMMAND…: runs it as root, by sudo when need be.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "root is needed for: $*"
  fi
}

# install_packages PACKAGE…: installs those Debian packages that are missing, and says which. Services that come with
# them are not started: the testbed runs its own.
install_packages() {
  local package missing=()
  for package in "$@"; do
    # shellcheck disable=SC2016 # dpkg-query fills it in
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "this is no Debian: install by hand: ${missing[*]}"
  say "installing: ${missing[*]}"

  local policy=/usr/sbin/policy-rc.d guard='' failed=''
  if [ ! -e "$policy" ]; then
    guard=yes
    # 101: the package's scripts may not start a service (man invoke-rc.d).
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  {
    as_root apt-get -qq update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}"
  } </dev/null >&2 || failed=yes
  [ -z "$guard" ] || as_root rm -f "$policy"
  [ -z "$failed" ] || die "apt-get could not install: ${missing[*]}"
}

# need_rust: finds cargo, also where rustup puts it.
need_rust() {
  command -v cargo >/dev/null || PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"
  command -v cargo >/dev/null || die "no Rust toolchain: install one from https://rustup.rs"
}

# shellcheck disable=SC2034 # for those who source this
# What a build needs: a C compiler for SQLite and ring; protoc for the etcd client; the real mail server of the tests.
BUILD_PACKAGES=(gcc libc6-dev pkg-config protobuf-compiler libprotobuf-dev)
# shellcheck disable=SC2034
MAIL_PACKAGES=(dovecot-core dovecot-imapd dovecot-lmtpd)
# The server that the testbed sends mail by; it runs as root only.
# shellcheck disable=SC2034
SMTP_PACKAGES=(postfix)
# What Cyrus, another mail server of the tests, is linked to; deploy/testbed/cyrus/setup unpacks the server itself.
# shellcheck disable=SC2034
CYRUS_PACKAGES=(libdb5.3 libical3 libjansson4 libldap-2.5-0 libpcre3 libpq5 libsasl2-modules libsasl2-modules-db
  libsqlite3-0 libwrap0 libxapian30 libxml2)
# shellcheck disable=SC2034
PYTHON_PACKAGES=(python3 python3-venv)
# shellcheck disable=SC2034
PROMETHEUS_PACKAGES=(prometheus)
# shellcheck disable=SC2034
ETCD_PACKAGES=(etcd-server etcd-client)
# What makes and tries the packages. docker-compose only reads compose files here.
# shellcheck disable=SC2034
DEBIAN_PACKAGES=(debhelper dpkg-dev fakeroot binutils)
# What understands units, without starting any.
# shellcheck disable=SC2034
UNIT_PACKAGES=(systemd)
# shellcheck disable=SC2034
REHEARSAL_PACKAGES=(debootstrap iproute2 systemd lintian docker-compose python3 python3-venv)
