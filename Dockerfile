# Both images can be replaced, for example by copies in a registry of your own. The build image needs
# Rust 1.95, a C compiler and CA certificates on a glibc system.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Pinned; .ci/run uses the same.
ARG CARGO_DENY=0.20.2
RUN cargo install --locked --debug --version "$CARGO_DENY" cargo-deny
COPY . .
# No image is made of what is not allowed, or of what is known to be vulnerable.
RUN cargo deny --locked check
RUN cargo build --release --locked --package keyferry --bin keyferry

# The root of the final image: the program, the shared libraries that it names with their loader, the CA
# roots, and the order in which host names are looked up. glibc's file and DNS look-ups are inside of
# libc since 2.34; older ones would need libnss_files and libnss_dns, so they are refused.
RUN set -eu; \
    program=/rootfs/usr/local/bin/keyferry; \
    install -D target/release/keyferry "$program"; \
    getconf GNU_LIBC_VERSION | awk '{ split($2, v, "."); exit !(v[1] > 2 || v[2] >= 34) }' \
        || { echo 'the build image needs glibc 2.34 or newer' >&2; exit 1; }; \
    ldd "$program" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' > /libraries; \
    test -s /libraries; \
    while read -r library; do install -D "$library" "/rootfs$library"; done < /libraries; \
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ca-certificates.crt; \
    echo 'hosts: files dns' > /rootfs/etc/nsswitch.conf

FROM ${RUNTIME_IMAGE}
COPY --from=build /rootfs /
USER 65532:65532
EXPOSE 8080 8082
ENTRYPOINT ["/usr/local/bin/keyferry"]
