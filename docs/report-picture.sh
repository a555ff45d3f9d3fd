#!/usr/bin/env bash
# Writes docs/report.svg, the picture of README.md: the heading, the figures and the first two curves of a run's report, as they stand there.
#
#   docs/report-picture.sh runs/NAME/report.html
set -euo pipefail
report=${1:?"usage: docs/report-picture.sh runs/NAME/report.html"}
root=$(readlink -f "${BASH_SOURCE[0]}")
picture=${root%/*}/report.svg
awk '
function between(text, from, to,    start) {
    start = index(text, from)
    if (!start) return ""
    text = substr(text, start + length(from))
    return substr(text, 1, index(text, to) - 1)
}
{ page = page $0 "\n" }
END {
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 410\" width=\"960\" height=\"410\" role=\"img\">"
    heading = between(page, "<h1>", " <span"); state = between(page, "<span class=\"state", "/span>")
    printf "<title>The report of a run: %s</title>\n<style>\n", heading
    print ":root { --ink: #1c2430; --soft: #5c6675; --paper: #fdfdfb; --raised: #ffffff; --rule: #dfe3e8; --s0: #1769aa; --s1: #c4501b; --good: #2c8a4b }"
    print "@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #9aa4b2; --paper: #14181e; --raised: #1a2027; --rule: #2f3742; --s0: #6cb2eb; --s1: #f0915c; --good: #6fcf8e } }"
    print "text { font: 12.5px system-ui, sans-serif; fill: var(--soft) } .big { font-size: 19px; font-weight: 700; fill: var(--ink) } .head { font-weight: 700; fill: var(--ink) }"
    print ".card { fill: var(--raised); stroke: var(--rule) } .state { fill: var(--good); font-weight: 600 } .grid { stroke: var(--rule); fill: none } .cursor { display: none }"
    print ".line { fill: none; stroke-width: 1.9; stroke-linejoin: round } .line.s0 { stroke: var(--s0) } .line.s1 { stroke: var(--s1) } .dash { stroke-dasharray: 6 4 }"
    print "circle.s0, .point.s0, .key0 { fill: var(--s0) } circle.s1, .point.s1, .key1 { fill: var(--s1) } .range { opacity: .18; stroke: none } .marked { font-size: 11.5px; fill: var(--ink) }"
    print "</style>\n<rect width=\"960\" height=\"410\" rx=\"8\" style=\"fill: var(--paper)\"/>"
    printf "<text class=\"big\" x=\"16\" y=\"30\">%s</text><text class=\"state\" text-anchor=\"end\" x=\"944\" y=\"30\">%s</text>\n", heading, between(state, ">", "<")
    rest = page
    for (i = 0; i < 6; i++) {
        start = index(rest, "<div class=\"card\">"); if (!start) break
        rest = substr(rest, start + 18)
        printf "<rect class=\"card\" x=\"%d\" y=\"44\" width=\"148\" height=\"50\" rx=\"7\"/><text class=\"big\" x=\"%d\" y=\"67\">%s</text><text x=\"%d\" y=\"85\">%s</text>\n", \
            16 + 156 * i, 28 + 156 * i, between(rest, "<b>", "</b>"), 28 + 156 * i, between(rest, "<span>", "</span>")
    }
    rest = page
    for (i = 0; i < 2; i++) {
        rest = substr(rest, index(rest, "<figure class=\"chart\">") + 1)
        x = 16 + 468 * i; chart = between(rest, "<svg viewBox=\"0 0 460 270\"", "</svg>"); sub(/^[^>]*>/, "", chart)
        printf "<rect class=\"card\" x=\"%d\" y=\"104\" width=\"460\" height=\"294\" rx=\"7\"/><text class=\"head\" x=\"%d\" y=\"124\">%s</text><text text-anchor=\"end\" x=\"%d\" y=\"124\">%s</text>\n", \
            x, x + 12, between(rest, "<b>", "</b>"), x + 448, between(rest, "<span>", "</span>")
        printf "<svg x=\"%d\" y=\"126\" width=\"448\" height=\"250\" viewBox=\"0 0 460 270\">%s</svg>\n", x + 4, chart
        names = between(rest, "\"series\":[", "</script>")
        for (k = 0; k < 2 && index(names, "\"name\":\""); k++) {
            names = substr(names, index(names, "\"name\":\"") + 8)
            printf "<rect class=\"key%d\" x=\"%d\" y=\"383\" width=\"12\" height=\"4\"/><text x=\"%d\" y=\"389\">%s</text>\n", k, x + 60 + 110 * k, x + 78 + 110 * k, substr(names, 1, index(names, "\"") - 1)
        }
    }
    print "</svg>"
}' "$report" >"$picture.new"
mv "$picture.new" "$picture"
echo "$picture"
