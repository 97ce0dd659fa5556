# The command in an image without a shell, for `web`, `doctor`, `prune` and the like:
#
#     docker build -t pglocker .
#     docker run --rm -e PGHOST=db.example.com -e PGUSER=app pglocker ls
#
# `run` and `elect` run a program: copy /usr/local/bin/pglocker into its image.
FROM golang:1.26 AS build

# The image has local here: an older one that is still about couldn't build what asks for a later 1.26.
ENV GOTOOLCHAIN=auto
WORKDIR /src
COPY . .
RUN cd cmd/pglocker && CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /pglocker .

FROM gcr.io/distroless/static-debian13:nonroot

COPY --from=build /pglocker /usr/local/bin/pglocker
# A number, because Kubernetes can't tell by a name that it isn't root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pglocker"]
