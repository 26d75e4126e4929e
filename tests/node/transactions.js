// transactions.js BROKER TOPIC GROUP: three transactions with a record and an offset each; committed,
// aborted, committed. Prints, as JSON, what the group has committed in the end.

const { connectTo, run } = require('./client')

const [broker, topic, group] = process.argv.slice(2)

run(async () => {
  const kafka = connectTo(broker)
  const producer = kafka.producer({ transactionalId: group, idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (const [value, offset, commits] of [['yes', '1', true], ['no', '9', false], ['again', '2', true]]) {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ key: value, value }] })
    const partitions = [{ partition: 0, offset }]
    await transaction.sendOffsets({ consumerGroupId: group, topics: [{ topic, partitions }] })
    await (commits ? transaction.commit() : transaction.abort())
  }
  await producer.disconnect()
  const admin = kafka.admin()
  await admin.connect()
  const [committed] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  await admin.disconnect()
  console.log(JSON.stringify(committed.partitions.map(partition => partition.offset)))
})
