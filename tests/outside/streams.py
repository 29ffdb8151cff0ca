"""Streams, consumers, buckets and objects with nats-py. Usage: streams.py URL"""

import asyncio
import hashlib
import io
import os
import sys

import nats
from nats.errors import TimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig, ObjectStoreConfig, StreamConfig
from nats.js.errors import (
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
    ObjectNotFoundError,
)


async def consumers(nc, js):
    await js.add_stream(StreamConfig(name="S", subjects=["s.>"]))
    for n in range(100):
        await js.publish(f"s.{n % 4}", str(n).encode())

    durable = await js.pull_subscribe("s.1", "WORK", config=ConsumerConfig(ack_wait=30))
    first = await durable.fetch(10, timeout=10)
    assert [int(m.data) for m in first] == list(range(1, 40, 4)), first
    for message in first:
        await message.ack_sync(timeout=10)
    info = await durable.consumer_info()
    assert (info.num_pending, info.num_ack_pending, info.ack_floor.stream_seq) == (15, 0, 38), info
    rest = await durable.fetch(100, timeout=1)
    assert len(rest) == 15, len(rest)
    await rest[0].nak()
    (again,) = await durable.fetch(1, timeout=10)
    assert (again.data, again.metadata.num_delivered) == (rest[0].data, 2)
    try:
        await durable.fetch(1, timeout=0.3)
        raise AssertionError("nothing is left")
    except TimeoutError:
        pass
    print("pull")

    seen = []
    done = asyncio.Event()

    async def take(message):
        seen.append(int(message.data))
        await message.ack()
        if len(seen) == 25:
            done.set()

    push = await js.subscribe("s.2", durable="PUSH", cb=take, manual_ack=True)
    await asyncio.wait_for(done.wait(), 10)
    assert seen == list(range(2, 100, 4)), seen
    await push.unsubscribe()
    group = [await js.subscribe("s.3", queue="crew") for _ in range(2)]
    both = []
    for member in group:
        while True:
            try:
                message = await member.next_msg(timeout=0.3)
            except TimeoutError:
                break
            both.append(int(message.data))
            await message.ack()
    assert sorted(both) == list(range(3, 100, 4)), both
    print("push and a queue group")

    ordered = await js.subscribe("s.>", ordered_consumer=True)
    assert [int((await ordered.next_msg(timeout=10)).data) for _ in range(100)] == list(range(100))
    await ordered.unsubscribe()
    late = await js.pull_subscribe(
        "s.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, filter_subject="s.>", ack_policy=AckPolicy.NONE)
    )
    assert [int(m.data) for m in await late.fetch(4, timeout=10)] == [96, 97, 98, 99]
    print("ordered, and the last of each")

    await js.delete_consumer("S", "WORK")
    try:
        await js.consumer_info("S", "WORK")
        raise AssertionError("it was deleted")
    except NotFoundError:
        print("deleted")


async def updates(watcher, count):
    return [await watcher.updates(timeout=10) for _ in range(count)]


async def buckets(nc, js):
    kv = await js.create_key_value(KeyValueConfig(bucket="B", history=5, ttl=3600))
    assert await kv.put("a", b"1") == 1
    assert await kv.put("a", b"2") == 2
    entry = await kv.get("a")
    assert (entry.value, entry.revision) == (b"2", 2)
    assert (await kv.get("a", revision=1)).value == b"1"
    print("put and get")

    assert await kv.create("b", b"new") == 3
    for attempt in (lambda: kv.create("b", b"again"), lambda: kv.update("a", b"3", last=1)):
        try:
            await attempt()
            raise AssertionError("not the last revision")
        except KeyWrongLastSequenceError:
            pass
    assert await kv.update("a", b"3", last=2) == 4
    print("conflicts")

    watcher = await kv.watchall()
    initial = await updates(watcher, 3)
    assert [(e.key, e.value) for e in initial[:2]] == [("b", b"new"), ("a", b"3")] and initial[2] is None, initial
    await kv.put("c", b"live")
    (live,) = await updates(watcher, 1)
    assert (live.key, live.value) == ("c", b"live")
    await watcher.stop()
    print("watch")

    await kv.delete("b")
    try:
        await kv.get("b")
        raise AssertionError("it was deleted")
    except KeyNotFoundError as error:
        assert error.op == "DEL", error
    assert [(e.value, e.operation) for e in await kv.history("b")] == [(b"new", None), (b"", "DEL")]
    assert await kv.create("b", b"over the marker") > 0
    await kv.purge("a")
    assert [(e.operation) for e in await kv.history("a")] == ["PURGE"]
    assert sorted(await kv.keys()) == ["b", "c"]
    await kv.delete("c")
    await kv.purge_deletes(olderthan=-1)
    assert await kv.keys() == ["b"]
    assert (await js.stream_info("KV_B", subjects_filter=">")).state.subjects == {"$KV.B.b": 3}
    try:
        await kv.get("never")
        raise AssertionError("it was never there")
    except KeyNotFoundError:
        print("history, delete, purge")

    short = await js.create_key_value(KeyValueConfig(bucket="SHORT", ttl=0.4))
    await short.put("k", b"v")
    for _ in range(100):
        try:
            await short.get("k")
        except KeyNotFoundError:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("it outlives its time")
    assert await js.delete_key_value("SHORT")
    try:
        await js.key_value("SHORT")
        raise AssertionError("it was deleted")
    except BucketNotFoundError:
        print("time to live")


async def objects(nc, js):
    store = await js.create_object_store("O", config=ObjectStoreConfig())
    size = int(os.environ.get("MESH_TEST_OBJECT_MIB", "3")) << 20
    data = os.urandom(size)
    info = await store.put("big/one.bin", io.BytesIO(data))
    assert info.size == size and info.chunks == -(-size // (128 << 10)), info
    got = await store.get("big/one.bin")
    assert hashlib.sha256(got.data).digest() == hashlib.sha256(data).digest()
    print("put and get an object")

    watcher = await store.watch(include_history=True)
    first = await watcher.updates(timeout=10)
    assert first.name == "big/one.bin" and await watcher.updates(timeout=10) is None
    await store.put("small", b"tiny")
    assert (await watcher.updates(timeout=10)).name == "small"
    await watcher.stop()
    assert sorted(o.name for o in await store.list()) == ["big/one.bin", "small"]
    print("watch and list objects")

    await store.put("small", b"other")
    assert (await store.get("small")).data == b"other"
    before = (await js.stream_info("OBJ_O")).state.messages
    await store.delete("big/one.bin")
    try:
        await store.get("big/one.bin")
        raise AssertionError("it was deleted")
    except ObjectNotFoundError:
        pass
    after = (await js.stream_info("OBJ_O")).state.messages
    assert before - after == info.chunks, (before, after)
    assert await js.delete_object_store("O")
    print("overwrite and delete objects")


async def walk(url):
    nc = await nats.connect(url, name="streams.py", connect_timeout=10)
    js = nc.jetstream(timeout=20)
    await consumers(nc, js)
    await buckets(nc, js)
    await objects(nc, js)
    await nc.close()


asyncio.run(asyncio.wait_for(walk(sys.argv[1]), 60))
