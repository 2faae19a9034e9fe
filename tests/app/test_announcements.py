"""Telling a real Redis which runs wait, whatever happens to the messages."""

import threading
import time

import pytest
import redis
from sqlalchemy import update

from app import sweeper
from app.announcements import announce
from app.broker import BrokerDown, Doorbell, task_name
from app.storage import retries, runs, workers
from app.storage.engine import now_epoch
from app.storage.tables import Run
from tests.app.work import in_threads
from tests.service import make_settings
from worker.tasks import claim_most_urgent

LEASE = 60.0


@pytest.fixture
def doorbell(broker_url: str) -> Doorbell:
    redis.Redis.from_url(broker_url).delete("gpu", "cpu")
    return Doorbell(make_settings(broker_url=broker_url))


def ids(queue, experiment_id: str, kind: str) -> list[str]:
    return [run.id for run in queue.runs(experiment_id) if run.kind == kind]


def messages(broker_url: str, name: str) -> list[bytes]:
    return redis.Redis.from_url(broker_url).lrange(name, 0, -1)


def age(queue, seconds: float) -> None:
    """As if all had been announced that long ago."""
    queue.do(lambda s: s.execute(update(Run).values(announced_at=now_epoch() - seconds)))


def test_what_is_ready_is_announced_once_and_what_waits_for_another_run_is_not(queue, doorbell, broker_url) -> None:
    experiment = queue.submit(seeds=[0, 1])
    assert announce(queue.database, doorbell, LEASE) == 2
    assert announce(queue.database, doorbell, LEASE) == 0
    told = b" ".join(messages(broker_url, "cpu"))
    assert all(run_id.encode() in told for run_id in ids(queue, experiment, "train"))
    assert not any(run_id.encode() in told for run_id in ids(queue, experiment, "evaluate"))
    assert told.count(task_name("train").encode()) == 2


def test_the_evaluation_is_announced_once_its_training_has_succeeded(queue, doorbell, broker_url) -> None:
    experiment = queue.submit()
    queue.succeed(queue.must_claim())
    assert announce(queue.database, doorbell, LEASE) == 1
    assert ids(queue, experiment, "evaluate")[0].encode() in messages(broker_url, "cpu")[0]


def test_a_lost_message_is_sent_again_after_a_minute(queue, doorbell, broker_url) -> None:
    queue.submit()
    announce(queue.database, doorbell, LEASE)
    redis.Redis.from_url(broker_url).delete("cpu")
    age(queue, 59)
    assert announce(queue.database, doorbell, LEASE) == 0
    age(queue, 61)
    assert announce(queue.database, doorbell, LEASE) == 1
    assert len(messages(broker_url, "cpu")) == 1


def test_the_queue_does_not_grow_while_no_worker_is_free(queue, doorbell, broker_url) -> None:
    queue.submit(seeds=[0, 1, 2])
    announce(queue.database, doorbell, LEASE)
    for _ in range(5):
        age(queue, 61)
        assert announce(queue.database, doorbell, LEASE) == 0
    assert len(messages(broker_url, "cpu")) == 3


def test_a_new_run_is_announced_while_old_ones_wait_and_only_that_one(queue, doorbell, broker_url) -> None:
    queue.submit(seeds=[0, 1])
    announce(queue.database, doorbell, LEASE)
    age(queue, 61)
    queue.submit(seeds=[2])
    assert announce(queue.database, doorbell, LEASE) == 1
    assert len(messages(broker_url, "cpu")) == 3


@pytest.mark.parametrize("how", ["handed back", "tried again"])
def test_a_run_that_waits_again_is_announced_at_once(queue, doorbell, how: str) -> None:
    queue.submit()
    announce(queue.database, doorbell, LEASE)
    fence = queue.must_claim()
    if how == "handed back":
        queue.do(runs.stop_or_requeue, fence, "stopped", count_try=False)
    else:
        queue.do(runs.fail, fence, "broken")
        queue.do(retries.retry, fence.run_id)
    assert announce(queue.database, doorbell, LEASE) == 1


def test_runs_go_to_the_gpu_queue_where_a_worker_with_a_gpu_lives(queue, doorbell, broker_url) -> None:
    queue.do(workers.beat, "host:1:1", device="cpu")
    queue.do(workers.beat, "host:2:1", device="cuda")
    queue.submit()
    announce(queue.database, doorbell, LEASE)
    assert len(messages(broker_url, "gpu")) == 1
    assert not messages(broker_url, "cpu")
    queue.do(workers.leave, "host:2:")
    queue.submit(seeds=[1])
    announce(queue.database, doorbell, LEASE)
    assert len(messages(broker_url, "cpu")) == 1


def test_what_was_told_to_gpus_that_have_gone_is_told_to_the_cpus(queue, doorbell, broker_url) -> None:
    queue.do(workers.beat, "host:1:1", device="cpu")
    queue.do(workers.beat, "host:2:1", device="cuda")
    queue.submit(seeds=[0, 1])
    announce(queue.database, doorbell, LEASE)
    queue.do(workers.leave, "host:2:")
    age(queue, 61)
    assert announce(queue.database, doorbell, LEASE) == 2
    assert len(messages(broker_url, "cpu")) == 2
    age(queue, 61)
    assert announce(queue.database, doorbell, LEASE) == 0


def test_a_broker_that_takes_connections_and_answers_nothing_is_down_too(queue, redis_server) -> None:
    doorbell = Doorbell(make_settings(broker_url=redis_server.url))
    queue.submit()
    redis_server.freeze()
    began = time.monotonic()
    with pytest.raises(BrokerDown):
        announce(queue.database, doorbell, LEASE)
    assert time.monotonic() - began < 60
    redis_server.thaw()
    assert announce(queue.database, doorbell, LEASE) == 1


def test_the_sweeper_goes_on_after_a_fault(queue, redis_server, monkeypatch) -> None:
    faults = iter([RuntimeError("a bug")])
    swept = threading.Event()

    def faulty(_database) -> dict[str, int]:
        for fault in faults:
            raise fault
        swept.set()
        return {}

    monkeypatch.setattr(sweeper, "sweep", faulty)
    thread = sweeper.Sweeper(queue.database, make_settings(), None, interval=0.01)
    thread.start()
    assert swept.wait(10)
    thread.close()


def test_announcing_and_cancelling_at_once_end_in_no_deadlock(queue, doorbell) -> None:
    experiment = queue.submit(seeds=list(range(20)))
    wanted = sorted(run.id for run in queue.runs(experiment))
    ended, faults = time.monotonic() + 2, []

    def repeat(operation, *arguments) -> None:
        while time.monotonic() < ended:
            try:
                queue.do(operation, *arguments)
            except Exception as error:
                faults.append(error)

    lots = ((runs.announced, wanted[::-1]), (runs.announced, wanted), (runs.hold, wanted))
    threads = [threading.Thread(target=repeat, args=one) for one in lots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_while_the_broker_is_down_nothing_counts_as_announced_and_nobody_waits_long(queue, redis_server) -> None:
    doorbell = Doorbell(make_settings(broker_url=redis_server.url))
    queue.submit()
    redis_server.stop()
    began = time.monotonic()
    with pytest.raises(BrokerDown, match="cannot be reached"):
        announce(queue.database, doorbell, LEASE)
    assert not doorbell.reachable()
    assert time.monotonic() - began < 60  # it is not tried for minutes
    redis_server.start()
    assert announce(queue.database, doorbell, LEASE) == 1
    assert doorbell.reachable()


def test_a_message_takes_the_most_urgent_run_and_as_many_messages_as_runs_take_them_all(queue) -> None:
    queue.submit(seeds=[0, 1])
    urgent = queue.submit(seeds=[2], priority=5)
    taken = [claim_most_urgent(queue.database, f"host:{n}:1", LEASE, named="run_x") for n in range(3)]
    assert all(taken)
    assert next(run.id for run in taken if run) == ids(queue, urgent, "train")[0]
    assert len({run.id for run in taken if run}) == 3
    assert claim_most_urgent(queue.database, "host:9:1", LEASE, named="run_x") is None


def test_a_run_whose_message_was_spent_on_one_that_was_not_announced_yet_is_announced_again(queue, doorbell) -> None:
    [normal] = ids(queue, queue.submit(seeds=[0]), "train")
    announce(queue.database, doorbell, LEASE)
    [urgent] = ids(queue, queue.submit(seeds=[1], priority=5), "train")
    taken = claim_most_urgent(queue.database, "host:1:1", LEASE, named=normal)
    assert taken is not None
    assert taken.id == urgent
    assert announce(queue.database, doorbell, LEASE) == 1, "else it would wait a minute"


def test_a_run_whose_message_another_will_bring_is_not_announced_twice(queue, doorbell) -> None:
    [normal] = ids(queue, queue.submit(seeds=[0]), "train")
    queue.submit(seeds=[1], priority=5)
    announce(queue.database, doorbell, LEASE)
    claim_most_urgent(queue.database, "host:1:1", LEASE, named=normal)
    assert announce(queue.database, doorbell, LEASE) == 0


def test_a_message_is_not_spent_while_somebody_is_marking_the_rows(queue) -> None:
    experiment = queue.submit()
    [train] = ids(queue, experiment, "train")
    marked, claimed = threading.Event(), []

    def claim() -> None:
        assert marked.wait(10)
        claimed.append(claim_most_urgent(queue.database, "host:1:1", LEASE, named=train))

    thread = threading.Thread(target=claim)
    thread.start()
    with queue.database.writing() as session:
        runs.announced(session, [train])
        marked.set()
        thread.join(0.5)
        assert thread.is_alive(), "it did not wait"
    thread.join(10)
    assert claimed[0] is not None


def test_workers_that_are_rung_at_once_take_a_run_each(queue) -> None:
    queue.submit(seeds=list(range(6)))
    claimed: list[str] = []

    def claim(owner: str) -> None:
        if run := claim_most_urgent(queue.database, owner, LEASE, named="run_x"):
            claimed.append(run.id)

    in_threads(claim, [(f"host:{n}:1",) for n in range(6)])
    assert len(set(claimed)) == len(claimed) == 6


def test_two_processes_of_a_worker_may_give_their_first_sign_of_life_at_once(queue) -> None:
    gate, faults = threading.Barrier(8), []

    def beat() -> None:
        try:
            gate.wait(10)
            queue.do(workers.beat, "host:1:1", device="cpu")
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=beat) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
