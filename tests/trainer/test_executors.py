"""One contract for every executor: real processes and a script behave alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from trainer.errors import CannotStart, NoFreeSlot, NotScripted
from trainer.executors.base import Executor
from trainer.executors.local import LocalExecutor
from trainer.executors.scripted import Answer, ScriptedExecutor, failed, scored
from trainer.spec import TrainingSpec

Make = Callable[..., TrainingSpec]
NO_PROGRAM = ("no-such-program",)
WELL = "print('---'); print('val_bpb: 0.5'); print('peak_vram_mb: 100.0')"
BADLY = "raise SystemExit(3)"
LONG = "import time; print('step 7 | loss: 2.5', flush=True); time.sleep(60)"
ANSWERS = {
    WELL: scored(0.5),
    BADLY: failed("crash", "exit code 3, no output", exit_code=3),
    LONG: Answer(held=True, shows="step 7 | loss: 2.5"),
}


def answer(spec: TrainingSpec) -> Answer:
    """What the same command would do as a process."""
    return Answer(cannot_start="no such program") if spec.command == NO_PROGRAM else ANSWERS[spec.command[2]]


@pytest.fixture(params=["local", "scripted"])
def executor(request: pytest.FixtureRequest) -> Executor:
    devices = ("cpu", "cuda:0")
    if request.param == "local":
        return LocalExecutor(devices)
    return ScriptedExecutor(answer, gate=asyncio.Event, devices=devices)


async def test_a_training_ends_with_its_result(executor: Executor, training: Make) -> None:
    spec = training(WELL)
    running = await executor.start(spec, 0)
    result = await running.wait()
    assert (result.outcome, result.score, result.peak_memory_mb, result.nonce) == ("scored", 0.5, 100.0, spec.nonce)
    assert running.pid > 0
    assert running.device == "cpu"
    assert await running.wait() == result


async def test_a_failure_is_a_result_and_no_error(executor: Executor, training: Make) -> None:
    result = await (await executor.start(training(BADLY), 0)).wait()
    assert (result.outcome, result.score, result.exit_code) == ("crash", None, 3)
    assert result.why == "exit code 3, no output"


async def test_what_cannot_start_raises_and_leaves_the_slot_free(executor: Executor, training: Make) -> None:
    with pytest.raises(CannotStart, match="no such program"):
        await executor.start(training(command=NO_PROGRAM), 0)
    assert (await (await executor.start(training(WELL), 0)).wait()).outcome == "scored"


async def test_a_slot_is_exclusive_until_its_training_has_ended(executor: Executor, training: Make) -> None:
    first = await executor.start(training(LONG), 0)
    with pytest.raises(NoFreeSlot, match="slot 0"):
        await executor.start(training(WELL), 0)
    second = await executor.start(training(WELL), 1)
    assert second.device == "cuda:0"
    assert (await second.wait()).outcome == "scored"
    await first.stop()
    assert (await (await executor.start(training(WELL), 0)).wait()).outcome == "scored"


async def test_a_slot_is_free_as_soon_as_its_result_is_known(executor: Executor, training: Make) -> None:
    for _ in range(3):
        assert (await (await executor.start(training(WELL), 1)).wait()).outcome == "scored"


async def test_stopping_is_a_result_of_its_own_and_may_be_repeated(executor: Executor, training: Make) -> None:
    running = await executor.start(training(LONG), 0)
    waiting = asyncio.create_task(running.wait())
    await asyncio.sleep(0)
    await asyncio.gather(running.stop(), running.stop())
    result = await waiting
    assert (result.outcome, result.score, bool(result.why)) == ("stopped", None, True)
    await running.stop()
    assert (await running.wait()).outcome == "stopped"


async def test_stopping_after_the_end_does_not_change_the_result(executor: Executor, training: Make) -> None:
    running = await executor.start(training(WELL), 0)
    await running.wait()
    await running.stop()
    assert (await running.wait()).outcome == "scored"


async def test_progress_is_shown(executor: Executor, training: Make) -> None:
    running = await executor.start(training(LONG), 0)
    while (progress := running.progress()) is None:  # noqa: ASYNC110 - it is polled, as the screen does
        await asyncio.sleep(0.01)
    assert (progress.step, progress.loss) == (7, 2.5)
    await running.stop()


async def test_cancelling_a_waiter_leaves_the_training_running(executor: Executor, training: Make) -> None:
    running = await executor.start(training(LONG), 0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.wait(), 0.05)
    with pytest.raises(NoFreeSlot):
        await executor.start(training(WELL), 0)
    await running.stop()


async def test_slots_are_numbered_from_zero_and_have_a_device(executor: Executor, training: Make) -> None:
    assert executor.capacity() == 2
    assert [executor.device(slot) for slot in range(2)] == ["cpu", "cuda:0"]
    for slot in (-1, 2):
        with pytest.raises(NoFreeSlot, match="does not exist"):
            executor.device(slot)
        with pytest.raises(NoFreeSlot):
            await executor.start(training(WELL), slot)


async def test_a_local_training_on_a_cuda_slot_sees_that_device_alone(training: Make) -> None:
    executor = LocalExecutor(("cpu", "cuda:3"), environ={"CUDA_VISIBLE_DEVICES": "0,1,2,3", "PATH": "/bin"})
    show = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    tails = [(await (await executor.start(training(show), slot)).wait()).tail for slot in range(2)]
    assert tails == ["0,1,2,3", "3"]


async def test_a_script_answers_by_experiment_attempt_and_trial(training: Make) -> None:
    executor = ScriptedExecutor({(3, 0, 1): scored(0.25, held=True)}, gate=asyncio.Event)
    running = await executor.start(training(trial=1), 0)
    waiting = asyncio.create_task(running.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    running.release()
    assert (await waiting).score == 0.25
    assert [one.spec.trial for one in executor.started] == [1]
    with pytest.raises(NotScripted, match="experiment 3, attempt 0, trial 0"):
        await executor.start(training(), 0)
