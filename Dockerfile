# The command hpcbn in a container, on Microsoft's images of Ubuntu 24.04. DOTNET is where they lie: Microsoft's registry with its folder dotnet, or your
# mirror of it.
#
#   docker build -t hpcbn --build-arg DOTNET=HOST/dotnet .                              with a shell and a package manager
#   docker build -t hpcbn:chiseled --build-arg DOTNET=HOST/dotnet --target chiseled .   with neither, and smaller
#
# Both run as the user app (1654), need no file system that can be written but /state, and keep their caches in /state/cache (XDG_CACHE_HOME):
#
#   docker run --rm --read-only -v hpcbn:/state -v /data/imagenet:/data:ro hpcbn train --recipe bn-x5 --data /data --output run
#
# tests/containers/run.sh executes these lines without Docker.

ARG DOTNET
FROM ${DOTNET}/sdk:10.0-noble AS build
RUN apt-get update && \
    apt-get install --yes --no-install-recommends cmake make g++ libdnnl-dev
WORKDIR /source
COPY . .
RUN dotnet publish src/HpcBatchNorm.Cli -c Release -o /app -p:BundleNative=true -p:RunAnalyzers=false
RUN mkdir -p /empty/cache

FROM ${DOTNET}/runtime:10.0-noble-chiseled AS chiseled
COPY --from=build /app /app
COPY --from=build --chown=1654:1654 /empty /state
ENV XDG_CACHE_HOME=/state/cache DOTNET_EnableDiagnostics=0 PATH=/app:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 1654
WORKDIR /state
ENTRYPOINT ["/app/hpcbn"]

FROM ${DOTNET}/runtime:10.0-noble AS shell
COPY --from=build /app /app
COPY --from=build --chown=1654:1654 /empty /state
ENV XDG_CACHE_HOME=/state/cache DOTNET_EnableDiagnostics=0 PATH=/app:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 1654
WORKDIR /state
ENTRYPOINT ["/app/hpcbn"]
