/**
 * What the lab's page looks like.
 *
 * @module
 */

/** The style sheet. */
export const STYLE = `
:root {
  --ink: #1d2129; --dim: #5b6472; --line: #dfe3e8; --ground: #ffffff; --panel: #f6f7f9;
  --run0: #9aa3af; --run1: #2563eb; --run2: #c9a227; --run3: #7c9a3b; --bad: #c62828; --good: #1b7f4b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e8eb; --dim: #9aa4b2; --line: #2d333d; --ground: #14171c; --panel: #1b2027;
    --run0: #6b7480; --run1: #5b8cff; --run2: #d9b744; --run3: #9dbd57; --bad: #ff6b6b; --good: #4cc38a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 940px; margin: 0 auto; padding: 32px 24px 80px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 56px 0 2px; padding-top: 20px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 32px 0 4px; }
h4 { font-size: 12px; margin: 20px 0 6px; color: var(--dim); font-weight: 600;
  text-transform: uppercase; letter-spacing: .05em; }
p { margin: 4px 0; max-width: 78ch; }
.dim { color: var(--dim); }
code, pre, td.number, th.number { font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace;
  font-size: 12.5px; }
table { border-collapse: collapse; width: 100%; }
.scroll { overflow-x: auto; }
th { text-align: left; font-size: 12px; color: var(--dim); font-weight: 600; }
th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; padding-right: 0; padding-left: 14px; }
tr.sum td { font-weight: 600; }
tr.same td { color: var(--dim); }
.up { color: var(--bad); } .down { color: var(--good); }
.flag { color: var(--bad); font-weight: 700; }
a { color: inherit; }
svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .name { text-anchor: end; } svg .count { fill: var(--dim); font-size: 11px; }
svg .end { text-anchor: end; } svg .strip { fill: var(--panel); }
.run0 { fill: var(--run0); } .run1 { fill: var(--run1); } .run2 { fill: var(--run2); }
.run3 { fill: var(--run3); }
ul.legend { list-style: none; margin: 6px 0 12px; padding: 0; display: flex; flex-wrap: wrap;
  gap: 4px 18px; font-size: 13px; }
ul.legend svg { display: inline-block; margin-right: 6px; vertical-align: -1px; }
pre { background: var(--panel); padding: 12px 14px; border-radius: 6px; overflow-x: auto; margin: 6px 0; }
ins, del { text-decoration: none; }
del { color: var(--bad); } ins { color: var(--good); }
td details { display: inline-block; margin-left: 12px; } td details summary { margin: 0; }
details summary { cursor: pointer; color: var(--dim); font-size: 13px; margin-top: 10px; }
`;
