// consume.js BROKER TOPIC GROUP COUNT: a KafkaJS group consumer with automatic topic creation. Prints
// `joined` once it has its assignment, then every record as a line of JSON, and leaves the group after
// COUNT records, with their offsets committed.

const { connectTo, run } = require('./client')

const [broker, topic, groupId, count] = process.argv.slice(2)

run(async () => {
  const consumer = connectTo(broker).consumer({ groupId, allowAutoTopicCreation: true })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  let left = Number(count)
  let finish
  const finished = new Promise((resolve) => {
    finish = resolve
  })
  consumer.on(consumer.events.GROUP_JOIN, () => process.stdout.write('joined\n'))
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (!payload.restart) {
      process.stderr.write(`${payload.error.stack}\n`)
      process.exit(1)
    }
  })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (left === 0) {
        return
      }
      process.stdout.write(
        `${JSON.stringify({
          partition,
          offset: Number(message.offset),
          key: message.key.toString(),
          value: message.value.toString(),
          number: message.headers.number.toString(),
        })}\n`,
      )
      const next = (BigInt(message.offset) + 1n).toString()
      await consumer.commitOffsets([{ topic, partition, offset: next }])
      left -= 1
      if (left === 0) {
        finish()
      }
    },
  })
  await finished
  await consumer.disconnect()
})
