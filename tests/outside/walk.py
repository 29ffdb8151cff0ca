"""The core protocol with nats-py. Usage: walk.py URL"""

import asyncio
import sys

import nats
from nats.errors import NoRespondersError, TimeoutError


async def take(subscription, count):
    return [await subscription.next_msg(timeout=10) for _ in range(count)]


async def quiet(subscription):
    try:
        message = await subscription.next_msg(timeout=0.1)
    except TimeoutError:
        return
    raise AssertionError(f"not expected: {message}")


async def walk(url):
    nc = await nats.connect(url, name="walk.py", connect_timeout=10)
    print("connected")

    plain = await nc.subscribe("walk.plain")
    for n in range(1000):
        await nc.publish("walk.plain", str(n).encode())
    assert [int(m.data) for m in await take(plain, 1000)] == list(range(1000))
    print("published and received in order")

    star, tail = await nc.subscribe("walk.*.c"), await nc.subscribe("walk.w.>")
    await nc.publish("walk.w.c", b"both")
    await nc.publish("walk.w.c.d", b"tail")
    assert [m.data for m in await take(star, 1)] == [b"both"]
    assert [m.subject for m in await take(tail, 2)] == ["walk.w.c", "walk.w.c.d"]
    await quiet(star)
    print("wildcards")

    got = [0, 0]

    def member(at):
        async def count(_):
            got[at] += 1

        return count

    for at in range(2):
        await nc.subscribe("walk.work", queue="workers", cb=member(at))
    for _ in range(200):
        await nc.publish("walk.work", b"job")
    await nc.flush(10)
    for _ in range(200):
        if sum(got) == 200:
            break
        await asyncio.sleep(0.05)
    assert sum(got) == 200 and min(got) > 0, got
    print("queue group shares the work")

    with_headers = await nc.subscribe("walk.headers")
    await nc.publish("walk.headers", b"body", headers={"Color": "blue"})
    (message,) = await take(with_headers, 1)
    assert (message.data, message.headers) == (b"body", {"Color": "blue"})
    print("headers")

    async def answer(message):
        await message.respond(message.data.upper())

    await nc.subscribe("walk.shout", cb=answer)
    assert (await nc.request("walk.shout", b"hey", timeout=10)).data == b"HEY"
    print("request and reply")

    try:
        await nc.request("walk.nobody", b"?", timeout=10)
        raise AssertionError("nobody answered")
    except NoRespondersError:
        print("no responders")

    limited = await nc.subscribe("walk.limited")
    await limited.unsubscribe(limit=2)
    for _ in range(5):
        await nc.publish("walk.limited", b"x")
    # Fetched, not counted after a flush: this library may send its PING ahead of publishes it still buffers.
    for _ in range(2):
        assert (await limited.next_msg(timeout=10)).data == b"x"
    last = await nc.request("walk.shout", b"after", timeout=10)
    assert last.data == b"AFTER" and limited.pending_msgs == 0, limited.pending_msgs
    print("limit of a subscription")

    await nc.drain()
    assert nc.is_closed
    print("drained")


asyncio.run(asyncio.wait_for(walk(sys.argv[1]), 60))
