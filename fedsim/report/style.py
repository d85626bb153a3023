"""The page's style: light, dark, phone, desktop and A4."""

CSS = """
:root{--ink:#1c2126;--paper:#fefefe;--quiet:#56606b;--line:#d8dde2;--wash:#f4f6f7;--link:#005a91;--bad:#a83e00;
--good:#00664b;--warn:#7a5200;color-scheme:light dark}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e4e8eb;--paper:#15191d;--quiet:#a3aeb8;--line:#353d45;
--wash:#1d2328;--link:#7cc4f2;--bad:#ff9d66;--good:#5fd0ab;--warn:#f0c060}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main,header,footer{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
header p.kind{margin:0;color:var(--quiet);font-size:.875rem}
h1{font-size:clamp(1.6rem,4vw,2.25rem);line-height:1.2;margin:.25rem 0 .75rem;font-weight:650;letter-spacing:-.01em}
h2{font-size:1.3rem;line-height:1.3;margin:3.25rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line);
font-weight:650}
h2 .n{color:var(--quiet);font-weight:400;margin-right:.6rem}
h3{font-size:1.02rem;margin:1.75rem 0 .5rem;font-weight:650}
p,.bullets{max-width:44rem;margin:.6rem 0}
.bullets{padding-left:1.2rem}.bullets li{margin:.3rem 0}
p.lead{font-size:1.12rem}
p.note,figcaption,caption,small{color:var(--quiet);font-size:.875rem}
p.caution{border-left:3px solid var(--bad);padding:.15rem 0 .15rem .9rem}
a{color:var(--link);text-underline-offset:.15em}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.5rem 1rem;z-index:1}
nav details{margin:.75rem 0 0}
nav ol{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.25rem;padding:0;margin:.5rem 0 0;font-size:.9rem}
nav a{text-decoration:none}nav a:hover{text-decoration:underline}
.scroll{overflow-x:auto;margin:1rem 0 1.5rem;max-width:100%;background:
linear-gradient(90deg,var(--paper) 40%,transparent) left/3rem 100% no-repeat local,
linear-gradient(270deg,var(--paper) 40%,transparent) right/3rem 100% no-repeat local,
linear-gradient(90deg,var(--line),transparent) left/.6rem 100% no-repeat scroll,
linear-gradient(270deg,var(--line),transparent) right/.6rem 100% no-repeat scroll}
table{border-collapse:collapse;font-size:.9rem;line-height:1.4;min-width:min(100%,40rem)}
.scroll.narrow table{min-width:0}
.side :is(th,td){min-width:7.5rem;width:9rem}.side th:first-child{min-width:6.5rem;width:6.5rem}
caption{text-align:left;padding:0 0 .4rem;caption-side:top}
th,td{text-align:left;vertical-align:top;padding:.5rem .9rem .5rem 0;border-bottom:1px solid var(--line);
font-weight:400;min-width:3.25rem}
thead th{color:var(--quiet);font-size:.82rem;vertical-align:bottom;border-bottom:1.5px solid var(--quiet)}
td.num,th.num{text-align:right;white-space:nowrap}
th small,td small{display:block;white-space:pre-line}
td.num small{white-space:pre}.words :is(tbody th,td){max-width:26rem}
.words td:not(:has(*)){white-space:pre-line}
tr>:last-child{padding-right:.25rem}
.swatch{display:inline-flex;gap:.45rem;align-items:baseline;font-weight:600;overflow-wrap:anywhere}
:is(th,td) .swatch{min-width:7rem}
.swatch svg{flex:none;transform:translateY(1px)}
.chip{display:inline-block;font-weight:650;white-space:nowrap}
.chip::before{display:inline-block;width:1.15em}
.chip.bad{color:var(--bad)}.chip.bad::before{content:"\\25B2"}
.chip.good{color:var(--good)}.chip.good::before{content:"\\25CB"}
.chip.warn{color:var(--warn)}.chip.warn::before{content:"?"}
figure{margin:1rem 0 1.75rem}
.gallery{max-width:57rem}
.band{display:grid;grid-template-columns:10.5rem minmax(0,1fr);gap:.25rem 1.25rem;padding:.75rem 0;
border-top:1px solid var(--line)}
.band.truth,.band.guess{background:var(--wash);border-top-color:var(--wash)}
.band>:first-child{padding-left:.5rem}
.who{font-weight:600}.who small{display:block;font-weight:400}
.tiles{list-style:none;margin:0;padding:0 .5rem 0 0;display:grid;
grid-template-columns:repeat(var(--columns),minmax(0,7.25rem));gap:.5rem 1rem}
.tiles img,.tiles .empty{display:block;width:100%;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;
background:var(--wash);border:1px solid var(--line)}
.tiles li>span:not(.empty){display:block;font-size:.8rem;line-height:1.35;color:var(--quiet)}
.tiles li>span.first{margin-top:.25rem;color:var(--ink);font-weight:600;min-height:1.35em}
.reason{margin:0;color:var(--quiet)}
figcaption{max-width:44rem;margin-top:.5rem}
.pair .scroll table{min-width:0}
.verdicts td[data-label^=strongest]{min-width:7.75rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:0 2rem}
.plot svg{display:block;width:100%;max-width:30rem;height:auto;background:none}
.plot svg text{font-family:inherit!important}
.flows{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,18.5rem),1fr));gap:0 1.5rem}
.flows .plot svg{max-width:19rem}.flows figcaption{font-weight:600;color:var(--ink);margin:.3rem 0 0}
.filters{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:baseline;font-size:.875rem;margin:1rem 0 0}
.filters select{font:inherit;color:inherit;background:var(--paper);border:1px solid var(--quiet);border-radius:3px;
padding:.15rem .3rem;max-width:14rem}
[hidden]{display:none!important}span[title]{text-decoration:underline dotted var(--quiet);text-underline-offset:.2em}
.two{display:inline-flex;gap:.35rem}.two img{width:3rem;height:3rem;object-fit:contain;image-rendering:pixelated;
border:1px solid var(--line);background:var(--wash)}
.blanks{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:.25rem 2rem;margin:1rem 0}
.blanks dt{font-size:.875rem;color:var(--quiet)}.blanks dd{margin:0;height:2rem;border-bottom:1px solid var(--ink)}
details{margin:1rem 0}summary{cursor:pointer;color:var(--link)}
pre{overflow-x:auto;background:var(--wash);padding:.9rem 1rem;font:.82rem/1.5 ui-monospace,SFMono-Regular,Consolas,
"Liberation Mono",monospace;border-radius:3px;max-width:100%}
.apart{margin-top:4rem;padding-top:.5rem;border-top:4px double var(--line)}
.apart h2{border-top:0;margin-top:1.5rem}
footer{padding:2rem 1.25rem 3rem;color:var(--quiet);font-size:.875rem}
@media (max-width:44rem){body{font-size:.97rem}.band{grid-template-columns:minmax(0,1fr)}
.band>:first-child,.reason{padding-left:.5rem}.who small{display:inline;margin-left:.5rem}
.tiles{padding-left:.5rem;gap:.5rem}.tiles li>span:not(.empty){font-size:.72rem}
nav ol{display:block}nav li{padding:.2rem 0}.truth .tiles .first{min-height:2.7em}
.cards table,.cards tbody,.cards tr,.cards th,.cards td,.cards caption{display:block;min-width:0;text-align:left}
.cards thead{display:none}.cards tr{border-bottom:1px solid var(--line);padding:.5rem 0}
.cards :is(tbody th,td){border:0;padding:.1rem 0}.cards td:empty{display:none}
.cards td::before{content:attr(data-label) ": ";color:var(--quiet)}
.cards td:has(.chip):not([data-label^=protection])::before,.cards td[data-label=""]::before{content:none}
.cards td.num{white-space:normal}.cards td.num small,.cards td small{display:inline;margin-left:.5rem}
.cards td:has(.chip) small{display:block;margin-left:0}}
@page{size:A4;margin:16mm 15mm 18mm}
@media print{:root{color-scheme:light}html{font-size:9.5pt}body{line-height:1.45}
main,header,footer{max-width:none;padding:0}nav,.skip{display:none}header{padding-top:0}
h2{margin-top:1.6rem;break-after:avoid}h3,caption,thead,summary{break-after:avoid}
tr,.band,.plot,p,li{break-inside:avoid}
.scroll{overflow:visible;background:none}table{font-size:.84rem;min-width:100%}th small,td small{font-size:.95em}
th,td{padding:.25rem .6rem .25rem 0;min-width:0}thead{display:table-header-group}
.pair{grid-template-columns:1fr 1fr}.plot svg{max-width:74mm}figure{margin:.6rem 0 1rem}
.tiles{grid-template-columns:repeat(var(--columns),22mm)}
pre{white-space:pre-wrap;overflow:visible;font-size:.7rem;line-height:1.35;columns:2}.short{break-inside:avoid}
.unprinted,.filters{display:none}.flows{grid-template-columns:1fr 1fr 1fr}.flows .plot{break-inside:avoid}
.flows .plot svg{max-width:56mm}[hidden]{display:revert!important}span[title]{text-decoration:none}
a{color:inherit;text-decoration:none}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
details::details-content{content-visibility:visible;height:auto}}
"""
