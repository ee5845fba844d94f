"""Our own pages on models' hosts: each is one document, since every path there is the app's, with a style that its policy names by hash."""

from base64 import b64encode
from hashlib import sha256
from html import escape

from modelyard.domain.errors import ModelyardError
from modelyard.web import problems
from modelyard.web.access import Send

NOT_KEPT = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
_STYLE = (
    ":root{color-scheme:light dark}"
    "body{margin:0;padding:clamp(1.5rem,8vw,5rem) 1rem;background:light-dark(#f5f6f4,#101514);color:light-dark(#17211e,#e6ece9);"
    'font:1rem/1.55 system-ui,-apple-system,"Segoe UI","Liberation Sans",sans-serif}'
    "main{max-width:32rem;margin:auto;padding:clamp(1.1rem,3vw,1.75rem);border:1px solid light-dark(#dde2df,#2b3532);border-radius:.75rem;"
    "background:light-dark(#ffffff,#181f1d);overflow-wrap:anywhere}"
    "h1{margin:0;font-size:1.6rem;line-height:1.2}p{margin:.9rem 0 0}"
    "a{color:light-dark(#0b6f61,#5ed2bd)}:focus-visible{outline:3px solid;outline-offset:2px}"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - Modelyard</title>
<style>{style}</style>
</head>
<body><main>
<h1>{title}</h1>
{texts}
</main></body>
</html>
"""
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def page(title: str, *texts: str, link: tuple[str, str] | None = None) -> str:
    """A document with a heading, paragraphs of plain text, and a link as its address and its words."""
    told = [f"<p>{escape(text)}</p>" for text in texts if text]
    if link is not None:
        told.append(f'<p><a href="{escape(link[0])}">{escape(link[1])}</a></p>')
    return _PAGE.format(title=escape(title), style=_STYLE, texts="\n".join(told))


def error_page(error: ModelyardError, console: str) -> str:
    """What went wrong, what to do, and the way to the console at this address."""
    title = problems.TITLES[problems.status_of(error)]
    return page(title, error.message, error.mend.replace("`", ""), link=(console, "To Modelyard"))


async def send_page(send: Send, status: int, told: dict[str, str], text: str = "") -> None:
    """Answer with it, under the policy; `told` are further headers."""
    body = text.encode()
    policy = {"content-security-policy": POLICY, "content-type": "text/html; charset=utf-8"}
    fields = {**policy, **NOT_KEPT, **told, "content-length": str(len(body))}
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
