#!/bin/sh
# Installs Portolan from a release archive, after comparing its checksum: the program, its unit and
# configuration, man pages and completions. Nothing is started.
#
#   install.sh --from DIRECTORY-OR-URL [--prefix /usr/local] [--signers FILE]
#
# --from     where SHA256SUMS and the archive are: a folder, or an https:// URL
# --prefix   where to install; the configuration goes to /etc/portolan, or PREFIX/etc/portolan below
#            another prefix than /usr and /usr/local
# --signers  verify SHA256SUMS.sig by this file of allowed signers (ssh-keygen(1)), as `portolan`
set -eu

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

from='' prefix=/usr/local signers=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || fail "$1 needs a value: see the head of this file"
    case $1 in
        --from) from=$2 ;;
        --prefix) prefix=$2 ;;
        --signers) signers=$2 ;;
        *) fail "unknown option $1: --from, --prefix and --signers are known" ;;
    esac
    shift 2
done
[ -n "$from" ] || fail "name the release: --from DIRECTORY or --from https://…"
case $(uname -s) in Linux) ;; *) fail "Portolan runs on Linux only" ;; esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
    case $from in
        https://*) curl --fail --silent --show-error --location --proto '=https' --output "$work/$1" "$from/$1" ;;
        *://*) fail "$from: only https:// and folders are supported" ;;
        *) cp "$from/$1" "$work/$1" ;;
    esac || fail "no $1 at $from"
}

fetch SHA256SUMS
if [ -n "$signers" ]; then
    fetch SHA256SUMS.sig
    ssh-keygen -Y verify -q -f "$signers" -I portolan -n portolan -s "$work/SHA256SUMS.sig" \
        < "$work/SHA256SUMS" > /dev/null || fail "SHA256SUMS is not signed by anybody in $signers"
fi
machine=$(uname -m)
archive=$(sed -n "s/^[0-9a-f]\{64\}  \(portolan-[0-9A-Za-z.-]*-linux-$machine\.tar\.gz\)\$/\1/p" "$work/SHA256SUMS")
[ -n "$archive" ] || fail "this release has no archive for $machine"
[ "$(echo "$archive" | wc -l)" -eq 1 ] || fail "SHA256SUMS lists several archives for $machine"
fetch "$archive"
(cd "$work" && grep -F "  $archive" SHA256SUMS | sha256sum --check --status) \
    || fail "$archive does not have the checksum in SHA256SUMS: nothing was installed"

tar -xzf "$work/$archive" -C "$work" --no-same-owner
tree=$work/${archive%.tar.gz}
put() { # mode, file, destination
    install -D -m "$1" "$tree/$2" "$3"
}
put 755 portolan "$prefix/bin/portolan"
for page in "$tree"/man/*; do
    put 644 "man/${page##*/}" "$prefix/share/man/man1/${page##*/}"
done
put 644 completions/portolan.bash "$prefix/share/bash-completion/completions/portolan"
put 644 completions/_portolan "$prefix/share/zsh/site-functions/_portolan"
put 644 completions/portolan.fish "$prefix/share/fish/vendor_completions.d/portolan.fish"
case $prefix in
    /usr | /usr/local) etc=/etc units=/etc/systemd/system ;;
    *) etc=$prefix/etc units=$prefix/lib/systemd/system ;;
esac
# An administrator's configuration stays.
[ -e "$etc/portolan/portolan.toml" ] || put 644 portolan.toml "$etc/portolan/portolan.toml"
sed -i "s|/usr/bin/portolan|$prefix/bin/portolan|; s|/etc/portolan|$etc/portolan|" "$tree/portolan.service"
put 644 portolan.service "$units/portolan.service"
echo "installed $prefix/bin/portolan ($("$prefix/bin/portolan" --version))"
echo "start it with: systemctl daemon-reload && systemctl enable --now portolan"
