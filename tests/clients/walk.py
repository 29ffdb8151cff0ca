"""The walk of tests/clients/mod.rs with nats-py: walk.py <open server> <server with the token "secret">."""

import asyncio
import sys

import nats
from nats.errors import NoRespondersError


async def take(subscription, count):
    return [await subscription.next_msg(timeout=20) for _ in range(count)]


async def barrier(client):
    """nats-py sends PING past what it still holds in its buffer: only the second round trip comes behind it."""
    await client.flush()
    await client.flush()


async def publish_and_subscribe(url):
    publisher, subscriber = await nats.connect(url), await nats.connect(url)
    everything = await subscriber.subscribe("walk.>")
    one = await subscriber.subscribe("walk.*.b")
    await barrier(subscriber)
    await publisher.publish("walk.a", b"plain")
    await publisher.publish("walk.a.b", b"with", headers={"Key": "value"})
    await publisher.publish("walk.c", b"", reply="answer.here")
    await publisher.publish("walk.big", b"7" * (1 << 20))
    await barrier(publisher)
    plain, headed, replied, big = await take(everything, 4)
    assert (plain.data, headed.headers, replied.reply) == (b"plain", {"Key": "value"}, "answer.here")
    assert len(big.data) == 1 << 20
    assert (await take(one, 1))[0].data == b"with"
    # The library's own counters agree with what the server has counted.
    assert publisher.stats["out_msgs"] == 4 and subscriber.stats["in_msgs"] == 5
    try:
        await publisher.publish("walk.big", b"7" * ((1 << 20) + 1))
        raise AssertionError("too large, and taken")
    except nats.errors.MaxPayloadError:
        pass
    await publisher.close()
    await subscriber.close()


async def requests(url):
    client = await nats.connect(url)
    try:
        await client.request("svc", b"", timeout=20)
        raise AssertionError("nobody listens, and somebody answered")
    except NoRespondersError:
        pass

    async def answer(message):
        await message.respond(message.data + b"!")

    await client.subscribe("svc", cb=answer)
    answers = await asyncio.gather(*(client.request("svc", b"%d" % n, timeout=20) for n in range(100)))
    assert [answer.data for answer in answers] == [b"%d!" % n for n in range(100)]
    old = await client.request("svc", b"old", timeout=20, old_style=True)
    assert old.data == b"old!"
    await client.close()


async def queue_groups(url):
    client = await nats.connect(url)
    members = [await client.subscribe("work", queue="q") for _ in range(2)]
    limited = await client.subscribe("work")
    await limited.unsubscribe(limit=5)
    for _ in range(100):
        await client.publish("work", b"x")
    await barrier(client)
    pending = [member.pending_msgs for member in members]
    assert sum(pending) == 100 and min(pending) > 10, pending
    await take(limited, 5)
    await client.close()


async def no_echo_and_drain(url):
    client, other = await nats.connect(url, no_echo=True), await nats.connect(url)
    own = await client.subscribe("echo")
    theirs = await other.subscribe("echo")
    await barrier(other)
    await client.publish("echo", b"mine")
    await barrier(client)
    assert (await take(theirs, 1))[0].data == b"mine" and own.pending_msgs == 0
    seen = []

    async def keep(message):
        seen.append(message)

    await other.subscribe("d", cb=keep)
    await barrier(other)
    for _ in range(1000):
        await client.publish("d", b"x")
    await barrier(client)
    await other.drain()
    assert len(seen) == 1000, len(seen)
    await client.close()


async def credentials(url):
    for token in [None, "wrong"]:
        try:
            await nats.connect(url, token=token, allow_reconnect=False, max_reconnect_attempts=0)
            raise AssertionError(f"came in with {token}")
        except nats.errors.Error as error:
            assert "authorization violation" in str(error).lower(), error
    client = await nats.connect(url, token="secret")
    await barrier(client)
    await client.close()


async def come_and_go(url):
    for _ in range(10):
        clients = await asyncio.gather(*(nats.connect(url) for _ in range(20)))
        for client in clients:
            await client.publish("x", b"y")
        await asyncio.gather(*(client.close() for client in clients))


async def main(open_address, guarded_address):
    url = f"nats://{open_address}"
    await publish_and_subscribe(url)
    await requests(url)
    await queue_groups(url)
    await no_echo_and_drain(url)
    await come_and_go(url)
    await credentials(f"nats://{guarded_address}")
    print("walked")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
