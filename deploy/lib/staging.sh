# What every package holds, laid out once for the Debian package and the bundle. Sourced, never run.
# shellcheck shell=bash

PROGRAMS=(postroom postroom-control-plane postroom-worker)

# build_programs debug|release: compiles them and sets `built` to their folder. Messages name the files that are built, so
# that they are found wherever the target folder is.
build_programs() {
  local profile=$1 flags=() messages path
  [ "$profile" = debug ] || flags=(--release)
  # The whole workspace, so that the features, and with them what is built already, are those of the tests.
  messages=$(cargo build --locked --workspace --bins "${flags[@]}" --message-format json-render-diagnostics)
  path=$(grep -o '"executable":"[^"]*/postroom"' <<<"$messages" | tail -n 1 | cut -d '"' -f 4)
  [ -n "$path" ] || die 'postroom was not built'
  built=$(dirname "$path")
}

# lay_out DEST: programs of `built`, man pages, completions, units, settings, manuals, and in share/ what is for other
# programs: alerts, dashboards, a drop-in for systemd.
lay_out() {
  local dest=$1 program
  mkdir -p "$dest"/{bin,man,completions,systemd,config,doc/docs,share/{prometheus,grafana,systemd}}
  for program in "${PROGRAMS[@]}"; do
    install -m 755 "$built/$program" "$dest/bin/"
  done
  strip --strip-debug "$dest"/bin/*
  "$built/postroom" man "$dest/man"
  "$built/postroom" completions bash >"$dest/completions/postroom"
  "$built/postroom" completions zsh >"$dest/completions/_postroom"
  "$built/postroom" completions fish >"$dest/completions/postroom.fish"
  install -m 644 deploy/systemd/*.service "$dest/systemd/"
  install -m 644 deploy/config/*.toml "$dest/config/"
  install -m 644 deploy/prometheus/{alerts,prometheus}.yaml "$dest/share/prometheus/"
  install -m 644 deploy/grafana/*.json "$dest/share/grafana/"
  install -m 644 deploy/systemd/*.conf "$dest/share/systemd/"
  install -m 644 README.md CHANGELOG.md "$dest/doc/"
  cp -r docs/. "$dest/doc/docs/"
  find "$dest/doc" -type f -exec chmod 644 {} +
}

# source_time: when what is packed was written, in seconds since 1970, so that the same sources make the same package.
source_time() { git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md; }

# workspace_version: the version that all crates share.
workspace_version() { sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml; }
