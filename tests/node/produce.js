// produce.js BROKER TOPIC FIRST COUNT [CODEC]: an idempotent KafkaJS producer, with automatic topic
// creation. Sends `value FIRST`, ... in batches of 50, keyed by number modulo 7. Prints, as JSON, the
// base offsets it was given.

const { CompressionTypes } = require('kafkajs')
const { connectTo, run } = require('./client')

const [broker, topic, first, count, codec = 'None'] = process.argv.slice(2)

run(async () => {
  const producer = connectTo(broker).producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const acknowledged = []
  const end = Number(first) + Number(count)
  for (let next = Number(first); next < end; next += 50) {
    const messages = []
    for (let n = next; n < Math.min(next + 50, end); n += 1) {
      messages.push({ key: `key ${n % 7}`, value: `value ${n}`, headers: { number: `${n}` } })
    }
    const sent = await producer.send({ topic, messages, compression: CompressionTypes[codec], acks: -1 })
    acknowledged.push(...sent.map(({ partition, baseOffset }) => ({ partition, baseOffset })))
  }
  await producer.disconnect()
  process.stdout.write(`${JSON.stringify(acknowledged)}\n`)
})
