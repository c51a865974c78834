# Postroom as an image: all three programs. Build it in the checkout, on a machine with a container engine:
#   docker build --build-arg POSTROOM_COMMIT=$(git rev-parse --short=12 HEAD) --tag postroom:0.1.0 .
# The target etcd is the etcd of Debian, which Postroom is tested with:
#   docker build --target etcd --tag postroom-etcd:3.4 .

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends protobuf-compiler libprotobuf-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The version says of which commit the programs are; git is left out of the build.
ARG POSTROOM_COMMIT=""
ENV POSTROOM_COMMIT=$POSTROOM_COMMIT
RUN cargo build --locked --release --workspace --bins \
 && mkdir /out \
 && cp target/release/postroom target/release/postroom-control-plane target/release/postroom-worker /out/ \
 && strip --strip-debug /out/*

FROM debian:bookworm-slim AS etcd
RUN apt-get update \
 && apt-get install --yes --no-install-recommends etcd-server etcd-client \
 && rm -rf /var/lib/apt/lists/* \
 && install --directory --mode=0700 --owner=etcd --group=etcd /data
USER etcd
VOLUME /data
ENTRYPOINT ["/usr/bin/etcd", "--data-dir=/data"]

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/postroom --shell /usr/sbin/nologin postroom \
 && install --directory --mode=0700 --owner=postroom --group=postroom /var/lib/postroom
COPY --from=build /out/ /usr/bin/
USER 10001
ENV POSTROOM_DATA=/var/lib/postroom
VOLUME /var/lib/postroom
EXPOSE 7430
CMD ["/usr/bin/postroom", "up", "--data", "/var/lib/postroom"]
