#!/usr/bin/env bash
# Makes the documentation as web pages: docs/site/build.sh [FOLDER]; without one in artifacts/site. A broken link ends it with an error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
exec dotnet run --project "$root/docs/site/HpcBatchNorm.Site.csproj" -c Release -- "$root" "${1:-$root/artifacts/site}"
