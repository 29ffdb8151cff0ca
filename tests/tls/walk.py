"""The walk of tests/tls/clients.rs with nats-py: walk.py <server> <directory with ca.pem, client.pem, client.key> <"first" or "">."""

import asyncio
import ssl
import sys

import nats


async def main(address, directory, first):
    context = ssl.create_default_context(cafile=f"{directory}/ca.pem")
    context.load_cert_chain(f"{directory}/client.pem", f"{directory}/client.key")
    client = await nats.connect(
        f"tls://{address}",
        tls=context,
        tls_hostname="localhost",
        tls_handshake_first=first == "first",
        allow_reconnect=False,
    )
    subscription = await client.subscribe("walk.>")
    await client.publish("walk.a", b"7" * 500_000)
    await client.publish("walk.b", b"b", headers={"Key": "value"})
    assert len((await subscription.next_msg(timeout=20)).data) == 500_000
    assert (await subscription.next_msg(timeout=20)).headers == {"Key": "value"}
    await client.drain()


asyncio.run(main(*sys.argv[1:4]))
print("walked")
