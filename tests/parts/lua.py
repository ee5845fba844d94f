"""Functions of the gateway's Lua, called one by one in nginx itself."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from parts.nginx import START, STARTS_WITHIN_S

CONF = """
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off; master_process off; pid %(folder)s/pid; error_log stderr warn; env MODELYARD_RUN;
events {}
http {
  access_log off; client_body_temp_path %(folder)s/a; proxy_temp_path %(folder)s/b; fastcgi_temp_path %(folder)s/c;
  uwsgi_temp_path %(folder)s/d; scgi_temp_path %(folder)s/e;
  lua_package_path "%(here)s/lua/?.lua;;";
  lua_shared_dict routes 8m; lua_shared_dict counts 8m; lua_shared_dict trust 8m; lua_shared_dict limits 8m; lua_shared_dict proven 8m;
  lua_shared_dict measures 1m;
  init_by_lua_block { require "resty.core" }
  server {
    listen unix:%(folder)s/lua.sock;
    client_max_body_size 64m; client_body_buffer_size 64m;
    location / {
      content_by_lua_block {
        local cjson = require "cjson"
        cjson.encode_invalid_numbers(true)
        ngx.req.read_body()
        local asked = cjson.decode(ngx.req.get_body_data())
        local call = require("modelyard." .. asked.module)[asked.name]
        local told = {}
        for n, words in ipairs(asked.calls) do
          local got = { call(unpack(words)) }
          told[n] = got[1] == nil and cjson.null or got
        end
        ngx.print(cjson.encode(told))
      }
    }
  }
  # Heads are judged before a body is read, by both ways.
  server {
    listen unix:%(folder)s/heads.sock;
    keepalive_timeout 0; chunked_transfer_encoding off; lingering_close always;
    location / {
      content_by_lua_block {
        local heads = require "modelyard.heads"
        local _, is_plain = heads.read({})
        ngx.print("[", tostring(is_plain), ",", tostring(heads.is_plain_as_shown()), "]")
      }
    }
  }
}
"""


class Lua:
    """An nginx that answers what a function gives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        conf = folder / "lua.conf"
        conf.write_text(CONF % {"folder": folder, "here": START.parent})
        environment = {"PATH": os.environ["PATH"], "MODELYARD_RUN": str(folder)}
        self._process = subprocess.Popen(["nginx", "-e", "stderr", "-p", folder, "-c", conf], env=environment, stderr=subprocess.PIPE)
        end = time.monotonic() + STARTS_WITHIN_S
        while not self._listens():
            assert self._process.poll() is None, self._process.stderr and self._process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.005)

    def ask(self, module: str, name: str, calls: list[list[Any]]) -> list[Any]:
        """What the function of the module gives for each of these argument lists: None, or all of its values; texts stand for bytes."""
        body = json.dumps({"module": module, "name": name, "calls": calls}, ensure_ascii=False).encode("latin-1")
        answer = self._answer("lua.sock", b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert answer is not None
        return list(json.loads(answer.decode("latin-1")))

    def is_plain(self, request: bytes) -> tuple[bool, bool] | None:
        """Whether the head of this request is plain by its places, and by its text; None where nginx itself refuses it."""
        answer = self._answer("heads.sock", request)
        return tuple(json.loads(answer)) if answer is not None else None

    def _answer(self, name: str, request: bytes) -> bytes | None:
        with socket.socket(socket.AF_UNIX) as conn:
            conn.settimeout(STARTS_WITHIN_S)
            conn.connect(str(self._folder / name))
            conn.sendall(request)
            conn.shutdown(socket.SHUT_WR)
            read = b""
            while piece := conn.recv(1 << 20):
                read += piece
        head, _, answer = read.partition(b"\r\n\r\n")
        return answer if b" 200 " in head.partition(b"\r\n")[0] else None

    def _listens(self) -> bool:
        """Whether it takes connections: the socket's name is there before it does."""
        with socket.socket(socket.AF_UNIX) as conn:
            return conn.connect_ex(str(self._folder / "heads.sock")) == 0

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(STARTS_WITHIN_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
