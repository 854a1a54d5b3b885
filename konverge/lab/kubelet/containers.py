"""One container of a pod: started, watched, restarted with back-off, and ended as the kubelet does."""

from __future__ import annotations

import asyncio
import logging
import secrets
from functools import partial
from pathlib import Path
from typing import Any

from konverge.errors import Invalid, NotFound
from konverge.lab.kubelet import tracking
from konverge.lab.kubelet.context import TaskSet
from konverge.lab.kubelet.ending import Ending
from konverge.lab.kubelet.environment import ConfigError, expand
from konverge.lab.kubelet.handlers import Target, act
from konverge.lab.kubelet.images import image_id, resolve_command, resolve_container
from konverge.lab.kubelet.logs import LogFile, prune
from konverge.lab.kubelet.piping import run_command, start_with_output
from konverge.lab.kubelet.probing import Prober
from konverge.lab.kubelet.processes import Launch, LaunchFailed, Process, exit_code
from konverge.lab.kubelet.recording import timestamp
from konverge.lab.kubelet.sandbox import ContainerPlace, Sandbox
from konverge.lab.kubelet.states import Backoff, ContainerRecord, Stage, may_restart

MESSAGE_LIMIT = 4096
"""Bytes of a termination message (KubeContainer API)."""
CONFIG_RETRY = 10.0
"""Seconds after which a container without its configuration is looked at again, changes or not."""
log = logging.getLogger(__name__)


class Container:
    """Runs one container until it is stopped or may not restart; ``record`` is what its status is made of."""

    def __init__(self, sandbox: Sandbox, spec: dict[str, Any], *, init: bool = False) -> None:
        self.spec = spec
        self.name = str(spec["name"])
        self.init = init
        self.sidecar = init and spec.get("restartPolicy") == "Always"
        self.record = ContainerRecord(self.name, str(spec["image"]))
        self.sandbox = sandbox
        self.log: LogFile | None = None
        self._log_number = -1
        self.place: ContainerPlace | None = None
        self.process: Process | None = None
        self.companions: set[Process] = set()
        """Processes run by exec in this container; they end with it."""
        self.active = False
        """Whether a process is being started, runs, or has just ended: the run must not be cancelled now."""
        self.started = asyncio.Event()
        """Set when the container has started once and passed its startup probe."""
        self._stopping = asyncio.Event()
        self._ending: Ending | None = None
        self._poke = asyncio.Event()
        self._prober: Prober | None = None
        delays = sandbox.context.settings.delays
        self._backoff = Backoff(delays.backoff, 30 * delays.backoff)
        self._image_backoff = Backoff(delays.backoff, 30 * delays.backoff)
        self._tasks = TaskSet()

    def log_path(self, *, previous: bool) -> Path | None:
        """Return the log of the present run or of the one before; while waiting both are that of the last run."""
        waiting = self.record.stage is Stage.WAITING
        if (previous or waiting) and not self.record.last:
            return None
        number = self._log_number - (1 if previous and not waiting else 0)
        path = self.sandbox.log_directory(self.name) / f"{number}.log"
        return path if number >= 0 and path.exists() else None

    def resume(self, status: dict[str, Any]) -> None:
        """Continue the counters of a pod that a kubelet before this one ran: what it ran is gone."""
        if not status.get("containerID"):
            return
        self.record.container_id = str(status["containerID"])
        self.record.restarts = int(status.get("restartCount") or 0) + 1
        ended = status["state"].get("terminated") or {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was started again",
            "startedAt": (status["state"].get("running") or {}).get("startedAt") or timestamp(),
            "finishedAt": timestamp(),
            "containerID": status["containerID"],
        }
        self.record.last = ended
        self._log_number = self.record.restarts - 1

    async def run(self) -> int:
        """Run until stopped, or until the restart policy ends it; return the last exit code."""
        while True:
            code = await self._run_once()
            if self._stopping.is_set() or not self._restarts(code):
                return code
            await self._back_off()
            if self._stopping.is_set():
                return code

    def _restarts(self, code: int) -> bool:
        policy = str(self.sandbox.pod["spec"].get("restartPolicy") or "Always")
        return may_restart(policy, code, init=self.init, sidecar=self.sidecar)

    async def _run_once(self) -> int:
        program_line = await self._find_program()
        self.place = await self._configure()
        await asyncio.sleep(self.sandbox.context.settings.delays.start)
        self.active = True
        try:
            return await self._run_process(self._launch(*program_line))
        finally:
            self.active = False

    async def _run_process(self, launch: Launch) -> int:
        try:
            process, readers = await self._start(launch)
        except LaunchFailed as error:
            return self._end(128, "StartError", error.message)
        if self._stopping.is_set():
            process.kill()  # the pod was deleted while the process was on its way
        try:
            await self._begin(process)
            code = exit_code(await process.wait())
        finally:
            await self._clean_up(process)
        for reader in readers:
            await reader.drain()
        return self._end(code, "Completed" if code == 0 else "Error", self._message(code))

    def _launch(self, program: Any, words: tuple[str, ...]) -> Launch:
        assert self.place is not None
        env = self.place.env
        return self.place.launch(program, tuple(expand(word, env) for word in words))

    async def _find_program(self) -> tuple[Any, tuple[str, ...]]:
        """Return the image's program; where there is none wait as for a pull that fails."""
        words = [tuple(str(word) for word in self.spec.get(key) or ()) for key in ("command", "args")]
        while True:
            self.record.image = str(self.spec["image"])
            try:
                found = resolve_container(self.record.image, words[0], words[1])
                self.record.image_id = image_id(self.record.image)
                return found
            except NotFound as error:
                self._warn("Failed", f"Failed to pull image {self.record.image!r}: {error.message}")
                self._wait("ErrImagePull", error.message)
            await self._sleep_or_poke(self._image_backoff.advance(self._now()) or 0.5)
            self._wait("ImagePullBackOff", f'Back-off pulling image "{self.record.image}"')
            self._warn("BackOff", f'Back-off pulling image "{self.record.image}"')
            await self._sleep_or_poke(self._image_backoff.advance(self._now()))

    async def _configure(self) -> ContainerPlace:
        while True:
            try:
                place = await self.sandbox.prepare(self.spec)
                self._emit("Pulled", f'Container image "{self.record.image}" already present on machine')
                return place
            except (ConfigError, Invalid) as error:
                self._warn("Failed", f"Error: {error.message}")
                self._wait("CreateContainerConfigError", error.message)
            mirrors = self.sandbox.context.mirrors
            for mirror in (mirrors.secrets, mirrors.config_maps):
                mirror.listen(self._on_change)
            await self._sleep_or_poke(CONFIG_RETRY)
            for mirror in (mirrors.secrets, mirrors.config_maps):
                mirror.forget(self._on_change)

    def _on_change(self, _before: object, _after: object) -> None:
        self._poke.set()

    async def _start(self, launch: Launch) -> tuple[Process, Any]:
        directory = self.sandbox.log_directory(self.name)
        self._log_number = self.record.restarts
        self.log = LogFile(directory / f"{self._log_number}.log")
        prune(directory)
        self._emit("Created", f"Created container: {self.name}")
        process, readers = await start_with_output(self.sandbox.context.launcher, launch, self.log.write)
        self.process = process
        self.record.container_id = "konverge://" + secrets.token_hex(32)
        tracking.remember(self._pids(), self._file_name(), process.pid)
        self._emit("Started", f"Started container {self.name}")
        return process, readers

    async def _begin(self, process: Process) -> None:
        """Run postStart, then report the container as running and probe it."""
        self._ending = None
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            passed, message = await act(hook, self.target(), None)
            if not passed:
                self._warn("FailedPostStartHook", f"PostStartHook failed: {message}")
                self._tasks.add(self.terminate(self._grace(), "FailedPostStartHook"))
        if process.returncode is not None:
            return
        startup, readiness = self.spec.get("startupProbe"), self.spec.get("readinessProbe")
        container_id = self.record.container_id
        self.record.run(container_id, timestamp(), started=not startup, ready=not readiness)
        self._changed()
        self._prober = Prober(
            self.spec,
            self.record,
            self.target(),
            changed=self._changed,
            failed=self._report_probe,
            unhealthy=self._restart_unhealthy,
        )
        self._tasks.add(self._prober.run())

    async def _clean_up(self, process: Process) -> None:
        """End everything that belonged to this run: probes, exec sessions, left-over children."""
        self._prober = None
        for companion in (*self.companions, process):
            companion.kill()
        self.process = None
        tracking.forget(self._pids(), self._file_name())
        await self._tasks.cancel()

    def _end(self, code: int, reason: str, message: str) -> int:
        if self.log is not None:
            self.log.close()
        self.record.terminate(code, reason, message, timestamp())
        self._changed()
        return code

    def _message(self, code: int) -> str:
        """Return what the container wrote to its termination log, else its last words where the pod wants them."""
        assert self.place is not None
        path = self.place.mounts.get(str(self.spec.get("terminationMessagePath") or "/dev/termination-log"))
        text = _tail(Path(path)) if path else ""
        if not text and code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" and self.log:
            return "\n".join(line.split(" ", 3)[-1] for line in _tail(self.log.path).splitlines()[1:])[-2048:]
        return text

    async def _back_off(self) -> None:
        pause = self._backoff.advance(self._now())
        if pause:
            metadata = self.sandbox.pod["metadata"]
            where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
            self._warn("BackOff", f"Back-off restarting failed container {self.name} in pod {where}")
            text = f"back-off {pause:g}s restarting failed container={self.name} pod={where}"
            self._wait("CrashLoopBackOff", text)
            await asyncio.sleep(pause)
        self.record.restarts += 1

    # Ending

    async def stop(self, grace: float) -> None:
        """End the container for good: preStop and SIGTERM within ``grace`` seconds, then SIGKILL."""
        self._stopping.set()
        if self._prober is not None:
            self._prober.stop_restarting()
        if self.process is not None:
            await self.terminate(grace, f"Stopping container {self.name}")

    def kill(self) -> None:
        """End the container at once, without preStop."""
        self._stopping.set()
        if self.process is not None:
            self.process.kill()

    async def terminate(self, grace: float, why: str) -> None:
        """End the running process; a second call can only shorten the time that is left."""
        process = self.process
        if process is None:
            return
        if self._ending is not None:
            self._ending.shorten(grace)
            await process.wait()
            return
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        self._ending = Ending(process, grace, partial(self._pre_stop, hook) if hook else None)
        self._emit("Killing", why)
        await self._ending.run()

    async def _pre_stop(self, hook: dict[str, Any]) -> None:
        passed, message = await act(hook, self.target(), None)
        if not passed:
            self._warn("FailedPreStopHook", f"PreStopHook failed: {message}")

    def _restart_unhealthy(self, kind: str) -> None:
        if self._stopping.is_set():
            return
        self._tasks.add(self._terminate_unhealthy(kind))

    async def _terminate_unhealthy(self, kind: str) -> None:
        probe = self.spec[f"{kind}Probe"]
        grace = float(probe.get("terminationGracePeriodSeconds") or self._grace())
        await self.terminate(grace, f"Container {self.name} failed {kind} probe, will be restarted")

    def replace_spec(self, spec: dict[str, Any]) -> None:
        """Take a changed container of the pod: only its image can change; a running one is started anew."""
        before, self.spec = str(self.spec["image"]), spec
        if before != str(spec["image"]):
            self._poke.set()
            if self.process is not None and not self._stopping.is_set():
                self._tasks.add(
                    self.terminate(self._grace(), f"Container {self.name} definition changed, will be restarted")
                )

    # What others use

    def target(self) -> Target:
        """Return where probes and hooks of this container go."""
        ports = {
            str(port["name"]): int(port["containerPort"]) for port in self.spec.get("ports") or () if port.get("name")
        }
        return Target(self.sandbox.address.ip, ports, self.sandbox.context.http, self.run_inside)

    async def run_inside(self, command: tuple[str, ...], timeout: float | None) -> tuple[int, bytes]:
        """Run a command in the container; return exit code and output."""
        return await run_command(self.sandbox.context.launcher, self.launch_inside(command), timeout)

    def launch_inside(self, command: tuple[str, ...], *, tty: bool = False) -> Launch:
        """Return how to run a command in the container; NotFound while it does not run."""
        if self.process is None or self.place is None:
            raise NotFound(f"container not running ({self.sandbox.label}/{self.name})", reason="NotRunning")
        return self.place.launch(*resolve_command(command), tty=tty)

    # Small things

    def _report_probe(self, kind: str, message: str) -> None:
        name = kind.removesuffix("Probe").capitalize()
        self._warn("Unhealthy", f"{name} probe failed: {message}")

    def _changed(self) -> None:
        if self.record.started:
            self.started.set()
        self.sandbox.changed()

    def _wait(self, reason: str, message: str) -> None:
        if self.record.wait(reason, message):
            self._changed()

    async def _sleep_or_poke(self, seconds: float) -> None:
        self._poke.clear()
        try:
            await asyncio.wait_for(self._poke.wait(), seconds)
        except TimeoutError:
            return

    def _grace(self) -> float:
        return float(self.sandbox.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _pids(self) -> Path:
        return self.sandbox.context.path("pids")

    def _file_name(self) -> str:
        return f"{self.sandbox.uid}_{self.name}"

    def _emit(self, reason: str, message: str) -> None:
        self.sandbox.context.emit(self.sandbox.pod, reason, message, container=self.name)

    def _warn(self, reason: str, message: str) -> None:
        self.sandbox.context.emit(self.sandbox.pod, reason, message, container=self.name, warning=True)

    async def abandon(self) -> None:
        """End everything without ceremony: the kubelet itself stops, or the run was cancelled."""
        self.kill()
        await self._tasks.cancel()
        if self.record.stage is Stage.RUNNING:
            self.record.terminate(137, "Error", "", timestamp())
        if self.log is not None:
            self.log.close()


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - MESSAGE_LIMIT))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
