# The image of manifests/daemonset.yaml: the binary, and the programs that it starts (iptables; modprobe).
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
RUN make build

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends iptables kmod ipvsadm && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/bin/kube-hop /usr/local/bin/kube-hop
ENTRYPOINT []
CMD ["kube-hop"]
