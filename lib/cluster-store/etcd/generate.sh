#!/bin/sh
# Makes gen/rpc_pb.js and its types from rpc.proto. Needed only after rpc.proto changed; wants protoc (Debian's
# protobuf-compiler) and fetches the plug-in of the runtime's own version.
set -eu
cd "$(dirname "$0")"
version=$(node -p "require('../../../node_modules/@bufbuild/protobuf/package.json').version")
plugin=$(mktemp -d)
trap 'rm -rf "$plugin"' EXIT
npm install --silent --no-save --prefix "$plugin" "@bufbuild/protoc-gen-es@$version"
mkdir -p gen
protoc --plugin=protoc-gen-es="$plugin/node_modules/.bin/protoc-gen-es" \
  --es_out=gen --es_opt=target=js+dts rpc.proto
