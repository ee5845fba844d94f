"""A hostile app, the app of somebody else that it wants to call, and the scripts that it tries this with."""

from yard import zipped

REQUIREMENTS = b"fastapi\n"

VICTIM = zipped(
    {
        "requirements.txt": REQUIREMENTS,
        "app.py": b"""
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse

app = FastAPI()
calls = {"post": 0, "socket": 0, "message": 0, "part": 0}

# The page of an app that trusts whoever speaks to it.
PAGE = '''<!doctype html><title>victim</title><p id=secret>the secret</p><script>
addEventListener("message", () => fetch("/message", { method: "POST" }));
</script>'''

@app.get("/")
def page(request: Request):
    if request.headers.get("sec-fetch-dest") not in ("document", None):
        calls["part"] += 1
    return HTMLResponse(PAGE)

@app.post("/predict")
def predict():
    calls["post"] += 1
    return {"prediction": "the secret"}

@app.post("/message")
def message():
    calls["message"] += 1

@app.websocket("/ws")
async def socket(ws: WebSocket):
    await ws.accept()
    calls["socket"] += 1
    await ws.send_text("the secret")
    await ws.close()

@app.get("/part.png")
def part():
    calls["part"] += 1

@app.get("/calls")
def told():
    return calls
""",
    }
)

HOSTILE = zipped(
    {
        "requirements.txt": REQUIREMENTS,
        "app.py": b"""
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

app = FastAPI()
COOKIES = [
    "__Host-modelyard=stolen; Secure; Path=/",
    "__Host-modelyard-app=stolen; Secure; Path=/",
    "__host-modelyard-app=stolen; Secure; Path=/",
    "__Host-modelyard=stolen; Secure; Path=/; Domain=localhost",
    "__Secure-tossed=stolen; Secure; Domain=localhost",
    "tossed=stolen; Domain=localhost",
    "tossed=stolen; Domain=apps.localhost",
    "tossed=stolen; Domain=127.0.0.1",
]

@app.get("/")
def page():
    answer = HTMLResponse("<!doctype html><title>still</title><script>document.title = 'ran'</script>")
    for cookie in COOKIES:
        answer.headers.append("set-cookie", cookie)
    return answer

@app.get("/sw.js")
def worker():
    return Response("self.addEventListener('fetch', () => {})", media_type="text/javascript", headers={"service-worker-allowed": "/"})
""",
    }
)

# Each takes the address of what it attacks, and says whether it was let: whether it read an answer, or was told that it got through.

READ = """async ([url]) => {
    try {
        const answer = await fetch(url, { credentials: "include" });
        return answer.ok && (await answer.text()).length > 0;
    } catch {
        return false;
    }
}"""
POST = """async ([url, mode, type]) => {
    const words = { method: "POST", mode, credentials: "include", headers: { "content-type": type }, body: JSON.stringify({ name: "stolen" }) };
    const answer = await fetch(url, words).catch(() => null);
    return answer !== null && answer.ok;
}"""
FORM = """([url, target]) => {
    const frame = Object.assign(document.createElement("iframe"), { name: "inner" });
    const form = Object.assign(document.createElement("form"), { method: "post", action: url, target });
    form.append(Object.assign(document.createElement("input"), { name: "name", value: "stolen" }));
    document.body.append(frame, form);
    form.submit();
}"""
IMAGE = """([url]) => new Promise((resolve) => {
    const image = Object.assign(document.createElement("img"), { src: url });
    image.onload = () => resolve(true);
    image.onerror = () => resolve(false);
})"""
SCRIPT = """([url]) => new Promise((resolve) => {
    const script = Object.assign(document.createElement("script"), { src: url });
    script.onload = () => resolve(true);
    script.onerror = () => resolve(false);
    document.head.append(script);
})"""
SOCKET = """([url]) => new Promise((resolve) => {
    const socket = new WebSocket(url.replace("http", "ws"));
    socket.onmessage = () => resolve(true);
    socket.onerror = () => resolve(false);
})"""
FRAME = """([url]) => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { src: url });
    frame.onload = () => {
        frame.contentWindow.postMessage("call", "*");
        try {
            resolve(frame.contentDocument.querySelector("#secret") !== null);
        } catch {
            resolve(false);
        }
    };
    document.body.append(frame);
})"""
WINDOW = """([url]) => {
    const opened = window.open(url);
    window.pokes = 0;
    setInterval(() => {
        if (opened) opened.postMessage("call", "*");
        window.pokes += 1;
    }, 20);
}"""
WORKER = """async () => {
    try {
        await navigator.serviceWorker.register("/sw.js");
        return true;
    } catch {
        return false;
    }
}"""
BAKE = """() => {
    for (const name of ["__Host-modelyard", "__Host-modelyard-app", "__Host-modelyard-device"]) {
        for (const where of ["", "; Domain=localhost", "; Domain=apps.localhost", "; Domain=" + location.hostname]) {
            document.cookie = `${name}=stolen; Secure; Path=/${where}`;
        }
    }
    for (const where of ["localhost", "127.0.0.1"]) document.cookie = `tossed=stolen; Domain=${where}`;
    return document.cookie;
}"""
