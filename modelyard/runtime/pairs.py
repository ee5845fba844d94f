"""Makes pairs in the engine, and makes them anew where they are not what they should be."""

import threading

from modelyard.domain.plan import MIB
from modelyard.runtime import engine_names
from modelyard.runtime.census import Census
from modelyard.runtime.container import Container
from modelyard.runtime.docker_options import DockerOptions
from modelyard.runtime.engine import Engine, EngineRefusedError, Json
from modelyard.runtime.engine_names import YARD
from modelyard.runtime.pair import APP, INLET, Pair, expected
from modelyard.runtime.runtime import InstanceSpec, Listener, NoSuchInstanceError, StartError
from modelyard.runtime.sockets_volume import SocketsVolume

CONFLICT, NOT_FOUND = 409, 404


class Pairs:
    """What is known of instances by name, and their containers."""

    def __init__(self, engine: Engine, census: Census, volume: SocketsVolume, options: DockerOptions) -> None:
        self._engine = engine
        self._census = census
        self._volume = volume
        self._options = options
        self._inlet_id = ""
        self._specs: dict[str, InstanceSpec] = {}
        self._guard = threading.Lock()

    def know(self, spec: InstanceSpec) -> None:
        """Let this spec hold from the instance's next start on."""
        with self._guard:
            self._specs[spec.name] = spec

    def forget(self, name: str) -> None:
        """Forget it."""
        with self._guard:
            self._specs.pop(name, None)

    def spec(self, name: str) -> InstanceSpec:
        """The spec.

        Raises:
            NoSuchInstanceError: It was not created by this process.
        """
        with self._guard:
            spec = self._specs.get(name)
        if spec is None:
            raise NoSuchInstanceError(f"{name} is not known")
        return spec

    def expected(self, name: str) -> Listener:
        """Where its app is looked for first."""
        return expected(self.spec(name))

    def too_much_memory(self, name: str, how: str) -> str:
        """The words for an app that ran out of memory."""
        with self._guard:
            spec = self._specs.get(name)
        limit = f"{spec.limits.memory_bytes // MIB} MiB of memory" if spec is not None else "its limit of memory"
        return f"{how}: it used more than {limit}"

    def ensure(self, name: str) -> tuple[Container, Container]:
        """Its inlet and its app, made where they are missing, and made anew where they were made from another spec; the app does not run.

        Raises:
            StartError: The engine would not make them, or a foreign container has the name.
        """
        pair = self._pair(self.spec(name))
        there = self._census.of(name)
        inlet, app = there.get(INLET), there.get(APP)
        if inlet is None or inlet.spec != pair.digest:
            self._discard(app, inlet)
            app = None
            self._volume.make(name)
            inlet = self._create(pair.inlet_name, pair.inlet())
        self._make_weights(pair.spec)
        if app is None or app.spec != pair.digest or app.network_of != inlet.id:
            self._discard(app)
            self._fetch(engine_names.code_image(self._options.yard, pair.spec.version_id))
            app = self._create(pair.app_name, pair.app(inlet.id))
        return inlet, app

    def _pair(self, spec: InstanceSpec) -> Pair:
        options, volume = self._options, self._volume
        return Pair(spec, options.yard, self._inlet(), volume.inlet_user, volume.folder(spec.name), options.weights_at)

    def _fetch(self, tag: str) -> None:
        """Have the app's image here, where it can be fetched and is not."""
        if self._options.fetch is None or self._engine.image(tag) is not None:
            return
        try:
            self._options.fetch(tag)
        except EngineRefusedError as error:
            raise StartError(f"the image {tag} is not here, and cannot be fetched: {error}") from error

    def _make_weights(self, spec: InstanceSpec) -> None:
        """The folder of each entry that the app reads: what comes later is seen by a running app."""
        if self._options.weights is None:
            return
        for name in spec.plan.weights:
            path = self._options.weights / name
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)  # the app's own user is to read it, whatever the umask

    def _inlet(self) -> str:
        if not self._inlet_id:
            image = self._engine.image(self._options.inlet_image)
            if image is None:
                raise StartError(f"the engine has no image {self._options.inlet_image}")
            self._inlet_id = str(image["Id"])
        return self._inlet_id

    def _discard(self, *containers: Container | None) -> None:
        for each in containers:
            if each is not None:
                self._engine.remove(each.id)
                self._census.look(each.id)

    def _create(self, called: str, config: Json) -> Container:
        try:
            try:
                made = self._engine.create(called, config)
            except EngineRefusedError as error:
                if error.status != CONFLICT or not self._give_way(called):
                    raise
                made = self._engine.create(called, config)
        except EngineRefusedError as error:
            if error.status == NOT_FOUND:
                self._inlet_id = ""
            raise StartError(f"the engine refused: {error}") from error
        seen = self._census.look(made)
        if seen is None:
            raise StartError(f"{called} was removed as soon as it was made")
        return seen

    def _give_way(self, called: str) -> bool:
        """Remove what has the name, where it is ours: another process may have just made it."""
        found = self._engine.inspect(called)
        if found is None:
            return True
        if (found["Config"]["Labels"] or {}).get(YARD) != self._options.yard:
            return False
        self._engine.remove(str(found["Id"]))
        self._census.look(str(found["Id"]))
        return True
