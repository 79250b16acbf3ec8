#!/bin/sh
# Build this enclave for Fortanix EDP with the Rust of Debian's packages, without rustup:
#
#     apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld
#
# rust-web-src brings the standard library's source with everything that it needs, so nothing is
# downloaded. Into the folder that is named, else into ./build: hello.elf, hello.sgxs.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=${1:-build}
target=x86_64-fortanix-unknown-sgx
rustc=${RUSTC:-/usr/bin/rustc}
cargo=${CARGO:-/usr/bin/cargo}

version=$("$rustc" --version | cut -d ' ' -f 2)
vendor=/usr/src/rustc-$version/library/vendor
if [ ! -d "$vendor" ]; then
    echo "there is no $vendor: install rust-web-src of the same version as rustc-web" >&2
    exit 2
fi

mkdir -p "$out/lib"
out=$(CDPATH='' cd -- "$out" && pwd)
cc -c -O2 -ffreestanding -fPIC -fno-stack-protector -fcf-protection=none \
    -o "$out/lib/unwind.o" "$here/unwind.c"
ar rcsD "$out/lib/libunwind.a" "$out/lib/unwind.o"

# RUSTC_BOOTSTRAP: building std is for nightly compilers, or for those who say that they know.
cd "$here"
env RUSTC="$rustc" RUSTC_BOOTSTRAP=1 CARGO_NET_OFFLINE=true CARGO_TARGET_DIR="$out/target" \
    CARGO_TARGET_X86_64_FORTANIX_UNKNOWN_SGX_LINKER=ld.lld \
    CARGO_TARGET_X86_64_FORTANIX_UNKNOWN_SGX_RUSTFLAGS="-L native=$out/lib" \
    "$cargo" build --release --locked --target $target -Zbuild-std=std,panic_abort \
    --config 'source.crates-io.replace-with="debian"' \
    --config "source.debian.directory=\"$vendor\""

cp "$out/target/$target/release/hello" "$out/hello.elf"
"${BROCH:-broch}" sgx convert --heap-size 0x2000000 --stack-size 0x20000 --threads 5 --debug \
    "$out/hello.elf" -o "$out/hello.sgxs"
