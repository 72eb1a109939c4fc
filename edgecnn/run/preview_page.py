"""The preview's page: no library, nothing loaded from anywhere. When the loop no longer answers, it says so."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>edgecnn run</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{margin:0;background:#14161a;color:#e8e8e8;font:15px/1.4 system-ui,sans-serif}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px;padding:12px;
max-width:1500px;margin:auto}
article{background:#1e2127;border-radius:8px;overflow:hidden;border:3px solid #1e2127}
article.off{border-color:#d23c3c}
article.warned{border-color:#ff8a1f}
img{display:block;width:100%;min-height:120px;background:#000}
header{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center;padding:8px 12px}
h2{font-size:15px;margin:0;flex:1;overflow-wrap:anywhere}
b{padding:2px 10px;border-radius:4px;background:#2f7d4f}
.REDUCED b{background:#a8791c}.off b{background:#d23c3c}
p{margin:0;padding:6px 12px;font-variant-numeric:tabular-nums;color:#b9bec7}
.banner{display:none;background:#d23c3c;color:#fff;font-weight:700;font-size:20px;text-align:center;padding:8px}
.off .banner{display:block}
.warnings{color:#ffb066;font-weight:700;min-height:1.4em}
</style></head><body><main id="streams"></main>
<script>
const NAMES={fcw:"FORWARD COLLISION",pedestrian:"PEDESTRIAN",headway:"TOO CLOSE",ldw_left:"LANE LEFT",
ldw_right:"LANE RIGHT"};
const cards=[];
function card(i){
  const a=document.createElement("article");
  a.innerHTML='<header><h2></h2><b></b></header><div class="banner"></div><img alt="the annotated picture">'+
    '<p class="warnings"></p><p class="figures"></p>';
  const img=a.querySelector("img");
  // a browser holds 6 connections to a host: beyond 4 streams the pictures are asked for one by one
  const load=()=>{img.src=i<4?"/stream/"+i+"?"+Date.now():"/frame/"+i+".jpg?"+Date.now()};
  load();
  img.onload=()=>{a.dataset.pictures=1;if(i>=4)setTimeout(load,250)};
  img.onerror=()=>{setTimeout(load,2000)};
  document.getElementById("streams").append(a);
  return a;
}
function show(a,s){
  a.className=(s.monitoring?s.mode:"off")+(s.warnings.length&&s.monitoring?" warned":"");
  a.querySelector("h2").textContent=s.name;
  a.querySelector("b").textContent=s.ended?"ENDED":s.mode;
  a.querySelector(".banner").textContent="NOT MONITORING"+(s.causes.length?": "+s.causes.join(", "):"");
  a.querySelector(".warnings").textContent=s.warnings.map(w=>NAMES[w]||w).join(" · ");
  const f=[s.fps.toFixed(1)+" frames/s",s.ms.toFixed(0)+" ms each"];
  if(s.age_ms!==null)f.push("picture "+s.age_ms+" ms old");
  if(s.dropped)f.push(s.dropped+" dropped");
  if(s.silent_s===null)f.push("no picture yet");else if(s.silent_s>1)f.push("nothing for "+s.silent_s.toFixed(0)+" s");
  a.querySelector(".figures").textContent=f.join(" · ");
}
async function tick(){
  try{
    const all=await(await fetch("/status.json",{cache:"no-store",signal:AbortSignal.timeout(1500)})).json();
    all.forEach((s,i)=>show(cards[i]=cards[i]||card(i),s));
  }catch(e){
    cards.forEach(a=>{a.className="off";a.querySelector("b").textContent="NO ANSWER";
      a.querySelector(".banner").textContent="NOT MONITORING: the program does not answer"});
  }
  setTimeout(tick,250);
}
addEventListener("load",tick);
</script></body></html>
"""
