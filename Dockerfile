# Both images can be replaced, for example by copies in a registry of your own. The build image needs
# Rust 1.95, a C compiler and CA certificates on a system of glibc 2.36 or newer.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Pinned; .ci/run uses the same.
ARG CARGO_DENY=0.20.2
ARG CARGO_CYCLONEDX=0.5.9
RUN cargo install --locked --debug --version "$CARGO_DENY" cargo-deny \
    && cargo install --locked --debug --version "$CARGO_CYCLONEDX" cargo-cyclonedx
COPY . .
# No image is made of what is not allowed, or of what is known to be vulnerable.
RUN cargo deny --locked check
# Relocations are packed: 1 MiB less in memory. What runs it needs glibc 2.36, and is copied from here. (Not for every
# release build, for `cargo demo` runs on older systems, too.)
RUN cargo rustc --release --locked --package keyferry --bin keyferry -- -C link-arg=-Wl,-z,pack-relative-relocs
# The bill of materials: the crates that the program links, without those that only build it, and the libraries of the
# system. .ci/run runs the same commands.
RUN cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps
RUN ldd target/release/keyferry | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' > /libraries
RUN deploy/sbom.sh keyferry_bin.cdx.json < /libraries

# The root of the final image: the program, the shared libraries that it names with their loader, the CA
# roots, and the order in which host names are looked up. glibc's file and DNS look-ups are inside of
# libc in all versions that run it.
RUN set -eu; \
    program=/rootfs/usr/local/bin/keyferry; \
    install -D target/release/keyferry "$program"; \
    getconf GNU_LIBC_VERSION | awk '{ split($2, v, "."); exit !(v[1] > 2 || v[2] >= 36) }' \
        || { echo 'the build image needs glibc 2.36 or newer' >&2; exit 1; }; \
    test -s /libraries; \
    while read -r library; do install -D "$library" "/rootfs$library"; done < /libraries; \
    install -D -m 0644 keyferry_bin.cdx.json /rootfs/usr/share/doc/keyferry/sbom.cdx.json; \
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ca-certificates.crt; \
    echo 'hosts: files dns' > /rootfs/etc/nsswitch.conf

# `docker build --target sbom --output . .` writes it beside the checkout's files.
FROM scratch AS sbom
COPY --from=build /rootfs/usr/share/doc/keyferry/sbom.cdx.json /

FROM ${RUNTIME_IMAGE}
COPY --from=build /rootfs /
USER 65532:65532
EXPOSE 8080 8082
ENTRYPOINT ["/usr/local/bin/keyferry"]
