"""One of the twelve systems, in Python: says its events and writes down what it hears.

Arguments: event, subject, body as JSON, how many, durable, file."""
import asyncio, json, os, sys, uuid
import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

event, subject, body, count, durable, path = sys.argv[1:]
LOST = (nats.errors.Error, asyncio.TimeoutError)


async def speak(js):
    for n in range(1, int(count) + 1):
        headers = {"Mesh-Event": event, "Mesh-Instance": os.environ["MESH_INSTANCE"], "Nats-Msg-Id": uuid.uuid4().hex}
        payload = json.dumps({**json.loads(body), "n": n}).encode()
        while True:
            try:
                await js.publish(subject, payload, headers=headers, timeout=2)
                break
            except LOST:
                await asyncio.sleep(0.2)
        await asyncio.sleep(0.1)


async def listen(js, out):
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.ALL, ack_wait=5, max_ack_pending=1)
    heard = None
    while heard is None:
        try:  # the broker may be down just now
            heard = await js.pull_subscribe("mesh.>", durable=durable, stream="MESH", config=config)
        except LOST:
            await asyncio.sleep(0.2)
    done = 0
    while True:
        try:
            [message] = await heard.fetch(1, timeout=2)
            place = message.metadata.sequence.stream
            if place > done:
                headers = message.headers or {}
                line = {"stream_seq": place, "event": headers.get("Mesh-Event"), "instance": headers.get("Mesh-Instance"),
                        "body": json.loads(message.data)}
                if "Mesh-Seq" in headers:
                    line["seq"] = int(headers["Mesh-Seq"])
                print(json.dumps(line), file=out, flush=True)
                done = place
            await message.ack_sync(timeout=2)
        except LOST:
            await asyncio.sleep(0.05)


async def main():
    nc = await nats.connect(os.environ["MESH_URL"], max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    js = nc.jetstream()
    with open(path, "a") as out:
        await asyncio.gather(speak(js), listen(js, out))


asyncio.run(main())
