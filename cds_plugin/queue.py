"""The Celery application: ids on two queues. The database holds the truth; a message only wakes a worker."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from cds_db.stages import JobKind
from cds_plugin.broker import broker_url
from cds_plugin.config import Settings

VISIBILITY_TIMEOUT_SECONDS = 3600
"""Redis hands an unacknowledged message out again after this time; no task may last as long."""
HARD_LIMIT_SECONDS = 1800
"""A task that runs longer is killed; its job's lease runs out and it is queued again."""
WAITING_MOST = 1000
"""Messages that may stand in one queue. What waits is in the database: where nobody consumes, waking the same
jobs again and again would fill the broker's memory."""
CONNECT_SECONDS = 2
ANSWER_SECONDS = 5

TASK_OF = {
    JobKind.ANALYSIS: "cds.analyse",
    JobKind.DELIVERY: "cds.deliver",
    JobKind.COMMITMENT: "cds.commitment",
}
QUEUE_OF = {
    JobKind.ANALYSIS: "analysis",
    JobKind.DELIVERY: "delivery",
    JobKind.COMMITMENT: "commitment",
}


def make_app(settings: Settings, *, consumes: bool = False) -> Celery:
    """Return a Celery application on the broker of the settings, without any task.

    One that only wakes others waits ANSWER_SECONDS for the broker's answer at most: a broker that hangs must
    not hang the sweeper. A consumer waits for messages as long as it takes.
    """
    app = Celery("cds", broker=broker_url(settings), set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_time_limit=HARD_LIMIT_SECONDS,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "max_retries": 0,  # of a producer's connection: a wake-up that fails is the sweeper's to repeat
            "socket_keepalive": False,
            **({} if consumes else {"socket_timeout": ANSWER_SECONDS}),
        },
    )
    return app


def room(app: Celery, kind: JobKind) -> int | None:
    """Return how many more messages a kind's queue may take; None where the broker is away."""
    name = QUEUE_OF[kind]
    try:
        with app.pool.acquire(block=True, timeout=ANSWER_SECONDS) as connection:
            try:
                waiting = connection.default_channel.queue_declare(queue=name, passive=True).message_count
            except connection.channel_errors:  # nobody sent or consumed anything yet
                waiting = 0
    except (KombuError, RedisError, OSError):
        return None
    return max(WAITING_MOST - int(waiting), 0)


def wake(app: Celery, kind: JobKind, job_id: int) -> bool:
    """Tell a worker to look at a job; return False where the broker is away (the sweeper tries again)."""
    try:
        app.send_task(TASK_OF[kind], args=[job_id], queue=QUEUE_OF[kind], retry=False)
    except (KombuError, RedisError, OSError):
        return False
    return True
