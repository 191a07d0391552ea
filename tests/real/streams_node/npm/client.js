// The client of the protocol, as its users call it: prints what it saw as one line of JSON.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"

const base = process.env.STREAMS_URL
const seen = {}

const orders = await DurableStream.create({ url: `${base}/v1/stream/npm/orders`, contentType: "application/json" })
await orders.append(JSON.stringify({ id: 1 }))
await orders.append(JSON.stringify({ id: 2 }))
seen.read = await (await stream({ url: orders.url, live: false })).json()

// Both live modes, begun at the tail: what each of them is told while it waits, until the stream is closed.
const { offset } = await orders.head()
async function tail(live) {
  const items = []
  const response = await orders.stream({ offset, live })
  const ended = new Promise((resolve, reject) => {
    response.subscribeJson((batch) => {
      items.push(...batch.items)
      if (batch.streamClosed) resolve()
    })
    response.closed.then(resolve, reject)
  })
  return { ended, items }
}
const tails = { sse: await tail("sse") }
// A long poll answers when there is something: it is begun, and the next append ends its wait.
const polling = tail("long-poll")

const producer = new IdempotentProducer(orders, "npm", { autoClaim: true })
for (const id of [3, 4, 5]) producer.append(JSON.stringify({ id }))
await producer.flush()
tails["long-poll"] = await polling
const closed = await orders.close()
for (const [live, { ended, items }] of Object.entries(tails)) {
  await ended
  seen[live] = items
}
seen.finalOffset = closed.finalOffset === (await orders.head()).offset
seen.closed = (await orders.head()).streamClosed
seen.refused = await orders.append(JSON.stringify({ id: 6 })).then(() => "stored", (error) => `${error.name} ${error.status ?? ""}`.trim())

const bytes = await DurableStream.create({ url: `${base}/v1/stream/npm/bytes`, contentType: "application/octet-stream" })
await bytes.append(new Uint8Array([0, 255, 10, 13]))
await bytes.append(new Uint8Array([1]))
seen.bytes = [...(await (await stream({ url: bytes.url, live: false })).body())]
await bytes.delete()
seen.deleted = !(await bytes.head().then((head) => head.exists, () => false))

console.log(JSON.stringify(seen))
