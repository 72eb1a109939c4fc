"""The page's style sheet: readable on a phone, in light and in dark. Plots take their colours from here too."""

CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f24;--soft:#5c6670;--rule:#dfe3e8;
--good:#0a7d3e;--bad:#c22128;--s0:#7b8794;--s1:#1f6feb;--s2:#a347c9;--s3:#c77700;--grid:#e6e9ed}
@media(prefers-color-scheme:dark){:root{--bg:#0f1317;--card:#181d23;--ink:#e7ebf0;--soft:#9aa5b1;--rule:#2b333c;
--good:#3fbf72;--bad:#ff6b6b;--s0:#8a97a5;--s1:#58a6ff;--s2:#cf8cf0;--s3:#f0a541;--grid:#262d35}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:16px}
header{display:flex;flex-wrap:wrap;gap:8px 24px;align-items:center;justify-content:space-between;margin:8px 4px 16px}
h1,h2{overflow-wrap:anywhere}
h1{margin:0;font-size:1.8rem;line-height:1.2}h2{margin:0 0 12px;font-size:1.2rem}h3{margin:16px 0 8px;font-size:1rem}
header p{margin:0;color:var(--soft)}
header .verdict{color:var(--soft);border:2px solid currentColor;border-radius:99px;padding:4px 16px;font-weight:600}
header .good,td.good{color:var(--good)}header .bad,td.bad{color:var(--bad)}td.good,td.bad{font-weight:600}
section{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:16px;margin:0 0 16px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:16px}
.cards b{display:block;font-size:1.4rem;line-height:1.3}.cards span{color:var(--soft);font-size:.85rem}
.wide,pre{overflow-x:auto}pre{font-size:.8rem;margin:0;max-height:24rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--rule);white-space:nowrap}
td:last-child{white-space:normal;padding-right:0}
th{color:var(--soft);font-weight:500}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:12px 0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;min-width:0;overflow-wrap:anywhere}dd dl{margin:0}
summary{cursor:pointer}summary h2{display:inline;margin:0}details[open]>summary{margin-bottom:12px}
.stills{display:grid;grid-template-columns:repeat(auto-fill,minmax(260px,1fr));gap:12px;margin-bottom:16px}
figure{margin:0}figure img{width:100%;display:block;border-radius:8px}
figcaption{color:var(--soft);font-size:.85rem;padding-top:4px}figcaption b{color:var(--bad)}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font-size:13px}
svg .axis{fill:var(--soft);font-size:11px}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.85rem;color:var(--soft)}
.legend svg{display:inline-block;width:10px}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}
.t0{fill:#2f9e8f}.t1{fill:#d4883a}.t2{fill:#7a6fd0}.t3{fill:#c95b86}.t4{fill:#6f9d3c}.t5{fill:#4d8fc7}
.why-stride{fill:var(--s0)}.why-worth{fill:var(--good)}.why-unsure{fill:var(--s1)}.why-closing{fill:var(--s3)}.why-cut{fill:var(--s2)}
.warn{fill:var(--bad)}.grid{stroke:var(--grid)}.whisker{stroke:var(--ink);stroke-width:1.2}
.level{stroke:var(--bad);stroke-dasharray:4 4}.cut{stroke:var(--s2);stroke-dasharray:2 3}
.curve{fill:none;stroke:var(--s3);stroke-width:2;stroke-linejoin:round}
svg .name{fill:#fff;font-size:9px}
.mode-normal{fill:var(--good)}.mode-reduced{fill:var(--s3)}.mode-off,.mode-stop{fill:var(--bad)}
.unseen{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden;white-space:nowrap}
:focus-visible{outline:3px solid var(--s1);outline-offset:2px}
@media print{:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--rule:#bbb;--grid:#ccc}
body{font-size:11pt}main{max-width:none;padding:0}section{border:0;padding:0}figure,tr,dl{break-inside:avoid}h2,h3{break-after:avoid}
details::details-content{content-visibility:visible;height:auto}.wide,pre{overflow:visible;max-height:none}pre{white-space:pre-wrap}
*{print-color-adjust:exact}td,th{white-space:normal}}
@media(max-width:520px){body{font-size:15px}dl{grid-template-columns:1fr}dt{padding-top:6px}svg text{font-size:18px}
svg .axis{font-size:16px}.legend svg{width:10px}}
"""
