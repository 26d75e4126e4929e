// platformatic.js BROKER TOPIC GROUP FIRST COUNT: with @platformatic/kafka, an idempotent producer sends
// `value FIRST`, ... in batches of 50, and a group consumer reads as many. Prints, as JSON, the base
// offsets of the batches and every record read; leaves the offsets committed.

const { Consumer, Producer, stringDeserializers, stringSerializers } = require('@platformatic/kafka')
const { run } = require('./client')

const [broker, topic, groupId, first, count] = process.argv.slice(2)
const client = { clientId: 'platformatic-e2e', bootstrapBrokers: [broker], retries: 8, retryDelay: 100 }

const produce = async () => {
  const producer = new Producer({ ...client, serializers: stringSerializers, idempotent: true, autocreateTopics: true })
  const bases = []
  const end = Number(first) + Number(count)
  for (let next = Number(first); next < end; next += 50) {
    const messages = []
    for (let n = next; n < Math.min(next + 50, end); n += 1) {
      messages.push({ topic, partition: 0, key: `key ${n % 7}`, value: `value ${n}`, headers: { number: `${n}` } })
    }
    const { offsets } = await producer.send({ messages })
    bases.push(...offsets.map((found) => Number(found.offset)))
  }
  await producer.close()
  return bases
}

const consume = async () => {
  const consumer = new Consumer({ ...client, groupId, deserializers: stringDeserializers, maxWaitTime: 200 })
  const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false })
  const records = []
  for await (const message of stream) {
    const { partition, offset, key, value, headers } = message
    records.push({ partition, offset: Number(offset), key, value, number: headers.get('number') })
    if (records.length === Number(count)) {
      await message.commit()
      break
    }
  }
  await consumer.close(true)
  return records
}

run(async () => {
  const bases = await produce()
  process.stdout.write(`${JSON.stringify({ bases, records: await consume() })}\n`)
  process.exit(0)
})
