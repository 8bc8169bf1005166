# The image holds one static program and the licences of what is linked into it.
#
#   scripts/image                               # for this machine, as twwatch:VERSION
#   docker buildx build --platform=linux/amd64,linux/arm64 …   # as scripts/image prints it
#
# Same commit, same Go: the same layer and settings. The image's own date is that
# of the build, except with a BuildKit that takes SOURCE_DATE_EPOCH (0.11 or newer).
ARG GO_IMAGE=docker.io/library/golang:1.26.8-bookworm

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
ENV GOCACHE=/cache/build GOMODCACHE=/cache/modules
WORKDIR /src
COPY . .
ARG TARGETARCH
ARG REVISION=unknown
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=cache,target=/cache \
    export GOOS=linux GOARCH=$TARGETARCH && \
    scripts/build /image/usr/bin/twwatch && \
    scripts/licences /image/usr/share/doc/twwatch/licences && \
    cp LICENSE NOTICE /image/usr/share/doc/twwatch/ && \
    chmod -R u=rwX,go=rX /image && chmod 755 /image/usr/bin/twwatch && \
    find /image -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch
COPY --from=build /image/ /
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="twwatch" \
      org.opencontainers.image.description="Why TCP connections pile up in TIME_WAIT and CLOSE_WAIT" \
      org.opencontainers.image.source="https://github.com/twwatch/twwatch" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# Numbers, so that Kubernetes' runAsNonRoot can tell. It needs no capability to
# watch the network namespace that it runs in.
USER 65534:65534
EXPOSE 10060
ENTRYPOINT ["/usr/bin/twwatch"]
CMD ["serve"]
