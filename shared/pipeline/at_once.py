"""Several steps of a run at once, each in its own process.

A step starts when its dependencies are done (order.py); among the steps that are ready, the first in the recipe starts.
One loop waits for events and makes all changes to the journal, so that the journal is correct at any time.
"""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.pipeline.expand import in_recipe_words
from shared.pipeline.order import dependencies
from shared.pipeline.step_process import Ended, Event, StepProcess, step_environment
from shared.pipeline.step_server import StepServer, can_fork
from shared.pipeline.steps import Steps, check_ended
from shared.terminal.messages import note, say
from shared.text import first_few

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class _Failure:
    error: BaseException
    last_line: str = ""
    """The line in which the step reported it, if lines of other steps may follow it."""


def run_at_once(steps: Steps, jobs: int) -> None:
    """Run the steps that are not done, up to `jobs` at once.

    After a step fails, no new step starts; the running steps end first, then the UserError is raised. Control-C,
    SIGTERM and SIGHUP reach the running steps as SIGTERM; KeyboardInterrupt or SystemExit follows when they have ended.
    A second signal kills them."""
    run = _Run(steps, jobs)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals_to(run.interrupt))
        if can_fork():
            commands = [step.line.words[1] for step in steps.steps]
            run.server = stack.enter_context(StepServer(commands, run.environment))
        try:
            run.loop()
        finally:
            for process in run.running.values():  # after an error in this process
                process.stop()
    run.end()


class _Run:
    """The running and waiting steps, and the failures."""

    def __init__(self, steps: Steps, jobs: int):
        self.steps, self.jobs = steps, jobs
        self.environment = step_environment(threads=max(1, cores() // jobs))
        self.server: StepServer | None = None
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.running: dict[int, StepProcess] = {}
        self.waiting = dict(enumerate(dependencies(steps.steps)))
        """{step that has not started: steps that must be done first}."""
        self.failures: list[_Failure] = []
        self.signal = 0
        self.stopped: list[str] = []
        """Steps stopped by the signal."""

    def loop(self) -> None:
        """Start and end steps until none runs and none may start."""
        self._begin_ready()
        while self.running:
            event = self.events.get()
            if isinstance(event, Exception):
                raise event
            self._ended(event)
            self._begin_ready()

    def end(self) -> None:
        """Raise the error or signal that ended the run; print the other failures first."""
        for failure in self.failures if self.signal else self.failures[1:]:
            print(f"error: {failure.error}", file=sys.stderr)
        if self.signal:
            if self.stopped:
                note(f"stopped: {first_few(self.stopped)}; run {self.steps.recipe.name} again to continue")
            raise _as_exception(self.signal)
        for failure in self.failures[:1]:
            if failure.last_line:
                print(failure.last_line, file=sys.stderr)
            raise failure.error

    def interrupt(self, number: int) -> None:
        """The first signal asks the running steps to end, and `loop` waits for them; a second one kills them."""
        again, self.signal = bool(self.signal), number
        for process in list(self.running.values()):
            process.kill() if again else process.terminate()
        if again:
            raise _as_exception(number)

    def _begin_ready(self) -> None:
        while len(self.running) < self.jobs and not self.failures and not self.signal:
            number = next((number for number, before in self.waiting.items() if not before), None)
            if number is None:
                return
            del self.waiting[number]
            try:
                begins = self.steps.begin(number, gap="")
                if begins and not self.signal:
                    self._start(number)
            except BrokenPipeError:  # stdout: nobody reads the output of further steps
                raise
            except (UserError, OSError) as error:
                self._fail(number, error)
            else:
                if not begins:
                    self._release(number)

    def _start(self, number: int) -> None:
        words, recipe = self.steps.steps[number].line.words[1:], self.steps.recipe

        def translate(line: str) -> str:
            return in_recipe_words(line, recipe)

        name = self.steps.name(number)
        process = StepProcess(number, name, words, self.environment, self.server, self.events, translate)
        self.running[number] = process
        if self.signal:  # it came in between
            process.terminate()

    def _ended(self, event: Ended) -> None:
        number = event.number
        del self.running[number]
        if self.signal and event.status:
            self.stopped.append(self.steps.name(number))
            return
        try:
            check_ended(self.steps.steps[number], self.steps.recipe, event.status)
            self.steps.finish(number, event.seconds)
        except (UserError, OSError, SystemExit) as error:
            self._fail(number, error, event.error)
            return
        say(f"{self.steps.place(number)}: done in {event.seconds:.0f} s")
        self._release(number)

    def _release(self, number: int) -> None:
        """Stop the other steps from waiting for this one."""
        for before in self.waiting.values():
            before.discard(number)

    def _fail(self, number: int, error: BaseException, last_line: str = "") -> None:
        self.failures.append(_Failure(error, last_line if self.running else ""))
        if self.running:
            names = first_few([self.steps.name(running) for running in self.running])
            note(f"the step {self.steps.name(number)!r} failed; no new step starts, waiting for running steps: {names}")


def _as_exception(number: int) -> BaseException:
    """The exception that ends a command after this signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextlib.contextmanager
def _signals_to(handle: Callable[[int], None]) -> Iterator[None]:
    """Inside the block, `handle` gets each signal. An ignored signal, such as SIGHUP after nohup, stays ignored."""
    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may set a handler
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, lambda number, _: handle(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
