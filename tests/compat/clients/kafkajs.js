// KafkaJS: producers, transactions, group consumers, and what its admin client offers.

const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, CompressionTypes, ConfigResourceTypes, Kafka, ResourcePatternTypes, logLevel } = require('kafkajs')
const { version } = require('kafkajs/package.json')
const { bootstrap, client, main, step: plainStep, until } = require('./steps')

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
const kafka = new Kafka({ clientId: 'compat', brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 5, initialRetryTime: 100 } })
const admin = kafka.admin()
const nameOf = (error) => error.type ?? error.originalError?.type ?? error.cause?.type ?? error.errors?.map((e) => e.type).join(' ') ?? error.name
const step = (name, action) => plainStep(name, action, nameOf)

const create = async (topic, numPartitions = 1) => {
  await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true })
  return topic
}

const messages = (count, prefix = 'value') => Array.from({ length: count }, (_, n) => ({ key: `k${n}`, value: `${prefix} ${n}`, headers: { n: `${n}` } }))

// Everything a group consumer reads from the beginning, until `count` messages have come or `quietMs` passed.
const read = async (topic, groupId, count, settings = {}, quietMs = 20_000) => {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6_000, heartbeatInterval: 1_000, ...settings })
  const seen = []
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ message }) => {
      seen.push(`${message.offset} ${message.value}`)
    },
  })
  const deadline = Date.now() + quietMs
  await until('messages', async () => seen.length >= count || Date.now() > deadline)
  await consumer.disconnect()
  return seen
}

const producers = async () => {
  for (const [name, settings] of [['plain', {}], ['idempotent', { idempotent: true, maxInFlightRequests: 1 }]]) {
    for (const codec of ['None', 'GZIP']) {
      const topic = await create(`js-${name}-${codec}`)
      await step(`producer: ${name}, ${codec}`, async () => {
        const producer = kafka.producer(settings)
        await producer.connect()
        const [answer] = await producer.send({ topic, messages: messages(500), compression: CompressionTypes[codec] })
        await producer.disconnect()
        return [answer.errorCode, answer.baseOffset]
      })
      await step(`consumer: ${name}, ${codec}`, async () => {
        const seen = await read(topic, `js-read-${name}-${codec}`, 500)
        return seen.length === 500 && seen.every((line, n) => line === `${n} value ${n}`)
      })
    }
  }
  const topic = await create('js-acks')
  for (const acks of [0, 1, -1]) {
    await step(`producer: acks=${acks}`, async () => {
      const producer = kafka.producer()
      await producer.connect()
      await producer.send({ topic, messages: messages(10), acks })
      await producer.disconnect()
      return until('records', async () => Number((await admin.fetchTopicOffsets(topic))[0].high) > 0)
    })
  }
  await step('producer: sendBatch', async () => {
    const producer = kafka.producer()
    await producer.connect()
    const two = [await create('js-batch-a'), await create('js-batch-b')]
    const answers = await producer.sendBatch({ topicMessages: two.map((name) => ({ topic: name, messages: messages(3) })) })
    await producer.disconnect()
    return answers.map((a) => `${a.topicName} ${a.errorCode} ${a.baseOffset}`).sort()
  })
}

const groups = async () => {
  const topic = await create('js-grouped', 4)
  await step('groups: two members, one leaves', async () => {
    const shares = [0, 0]
    const consumers = [0, 1].map(() => kafka.consumer({ groupId: 'js-pair', sessionTimeout: 6_000, heartbeatInterval: 500, rebalanceTimeout: 6_000 }))
    for (const [n, consumer] of consumers.entries()) {
      consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
        shares[n] = payload.memberAssignment[topic]?.length ?? 0
      })
      await consumer.connect()
      await consumer.subscribe({ topics: [topic] })
      await consumer.run({ eachMessage: async () => {} })
    }
    await until('two each', async () => shares.join() === '2,2')
    await consumers[0].disconnect()
    await until('all for one', async () => shares[1] === 4)
    await consumers[1].disconnect()
    return 'shared'
  })
  await step('groups: goes on from what was committed', async () => {
    const producer = kafka.producer()
    await producer.connect()
    const one = await create('js-resumed')
    await producer.send({ topic: one, messages: messages(5, 'a') })
    const first = await read(one, 'js-resumed', 5)
    await producer.send({ topic: one, messages: messages(5, 'b') })
    const second = await read(one, 'js-resumed', 5)
    await producer.disconnect()
    return [first.length, second]
  })
  await step('groups: seek', async () => {
    const consumer = kafka.consumer({ groupId: 'js-seek' })
    const seen = []
    await consumer.connect()
    await consumer.subscribe({ topics: ['js-resumed'] })
    consumer.run({ eachMessage: async ({ message }) => void seen.push(`${message.offset}`) })
    consumer.seek({ topic: 'js-resumed', partition: 0, offset: '7' })
    await until('three', async () => seen.length === 3)
    await consumer.disconnect()
    return seen
  })
}

const transactions = async () => {
  const topic = await create('js-transactions')
  const open = async (transactionalId) => {
    const producer = kafka.producer({ transactionalId, maxInFlightRequests: 1, idempotent: true, transactionTimeout: 30_000 })
    await producer.connect()
    return producer
  }
  await step('transactions: commit, abort, commit', async () => {
    const producer = await open('js-tx')
    for (const [n, commit] of [true, false, true].entries()) {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: [{ value: `a${n}` }, { value: `b${n}` }] })
      await (commit ? transaction.commit() : transaction.abort())
    }
    await producer.disconnect()
    return { committed: await read(topic, 'js-tx-committed', 4), uncommitted: await read(topic, 'js-tx-all', 6, { readUncommitted: true }) }
  })
  await step('transactions: offsets sent along', async () => {
    const offsets = { consumerGroupId: 'js-tx-group', topics: [{ topic, partitions: [{ partition: 0, offset: '3' }] }] }
    const said = []
    for (const commit of [false, true]) {
      // One for each: KafkaJS does not ask again while an earlier transaction is being ended.
      const producer = await open(`js-tx-offsets-${commit}`)
      const transaction = await producer.transaction()
      await transaction.sendOffsets(offsets)
      await (commit ? transaction.commit() : transaction.abort())
      said.push(
        await until('stable offsets', async () => {
          const [found] = await admin.fetchOffsets({ groupId: 'js-tx-group', topics: [topic] })
          return (!commit || found.partitions[0].offset === '3') && found.partitions[0].offset
        }),
      )
      await producer.disconnect()
    }
    return said
  })
  await step('transactions: a zombie is fenced', async () => {
    const old = await open('js-zombie')
    const first = await old.transaction()
    await first.send({ topic, messages: [{ value: 'old' }] })
    const fresh = await open('js-zombie')
    const second = await fresh.transaction()
    await second.send({ topic, messages: [{ value: 'new' }] })
    await second.commit()
    const said = await first.commit().then(
      () => 'committed',
      (error) => nameOf(error),
    )
    await fresh.disconnect()
    await old.disconnect()
    return [said, (await read(topic, 'js-zombie-read', 5)).filter((line) => /old|new/.test(line))]
  })
}

const administration = async () => {
  await step('admin: createTopics', () => admin.createTopics({ topics: [{ topic: 'js-admin', numPartitions: 2, configEntries: [{ name: 'retention.ms', value: '90000' }] }] }))
  await step('admin: createTopics, again', () => admin.createTopics({ topics: [{ topic: 'js-admin' }] }))
  await step('admin: createTopics, bad name', () => admin.createTopics({ topics: [{ topic: 'not valid!' }] }))
  await step('admin: listTopics', async () => (await admin.listTopics()).filter((name) => name.startsWith('js-admin')))
  await step('admin: fetchTopicMetadata', async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: ['js-admin'] })
    return topics.map((t) => [t.name, t.partitions.map((p) => [p.partitionErrorCode, p.leader, p.replicas, p.isr])])
  })
  await step('admin: createPartitions', () => admin.createPartitions({ topicPartitions: [{ topic: 'js-admin', count: 3 }] }))
  await step('admin: describeCluster', async () => {
    const { brokers, controller, clusterId } = await admin.describeCluster()
    return [brokers.length, controller, clusterId.length > 0]
  })
  await step('admin: describeConfigs', async () => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: 'js-admin', configNames: ['retention.ms'] }] })
    return resources.map((r) => [r.errorCode, r.configEntries.map((e) => [e.configName, e.configValue, e.isDefault])])
  })
  await step('admin: alterConfigs', async () => {
    const { resources } = await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: 'js-admin', configEntries: [{ name: 'retention.ms', value: '80000' }] }] })
    return resources.map((r) => r.errorCode)
  })
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: 'js-admin', messages: messages(10).map((m) => ({ ...m, partition: 0, timestamp: `${Date.now()}` })) })
  await producer.disconnect()
  const offsets = (list) => list.map((o) => [o.partition, o.offset, o.low, o.high]).sort()
  await step('admin: fetchTopicOffsets', async () => offsets(await admin.fetchTopicOffsets('js-admin')))
  await step('admin: fetchTopicOffsetsByTimestamp', async () => offsets(await admin.fetchTopicOffsetsByTimestamp('js-admin', Date.now() + 100_000)))
  await step('admin: setOffsets', () => admin.setOffsets({ groupId: 'js-set', topic: 'js-admin', partitions: [{ partition: 0, offset: '4' }] }))
  await step('admin: fetchOffsets', async () => (await admin.fetchOffsets({ groupId: 'js-set', topics: ['js-admin'] })).map((t) => t.partitions.map((p) => [p.partition, p.offset, p.metadata]).sort()))
  await step('admin: resetOffsets', () => admin.resetOffsets({ groupId: 'js-set', topic: 'js-admin', earliest: true }))
  await step('admin: listGroups', async () => (await admin.listGroups()).groups.filter((g) => g.groupId === 'js-set').map((g) => [g.groupId, g.protocolType]))
  await step('admin: describeGroups', async () => (await admin.describeGroups(['js-set', 'js-nobody'])).groups.map((g) => [g.groupId, g.errorCode, g.state]).sort())
  await step('admin: deleteGroups', async () => (await admin.deleteGroups(['js-set'])).map((g) => [g.groupId, g.errorCode ?? 0]))
  await step('admin: deleteGroups, not there', async () => (await admin.deleteGroups(['js-nobody'])).length)
  await step('admin: deleteTopicRecords', () => admin.deleteTopicRecords({ topic: 'js-admin', partitions: [{ partition: 0, offset: '4' }] }))
  await step('admin: offsets then', async () => offsets(await admin.fetchTopicOffsets('js-admin'))[0])
  await step('admin: listPartitionReassignments', async () => (await admin.listPartitionReassignments({ topics: [{ topic: 'js-admin', partitions: [0] }] })).topics.length)
  const acl = { resourceType: AclResourceTypes.TOPIC, resourceName: 'js-admin', resourcePatternType: ResourcePatternTypes.LITERAL, principal: 'User:someone', host: '*', operation: AclOperationTypes.READ, permissionType: AclPermissionTypes.ALLOW }
  await step('admin: createAcls', () => admin.createAcls({ acl: [acl] }))
  await step('admin: describeAcls', async () => (await until('the ACL', async () => { const { resources } = await admin.describeAcls(acl); return resources.length && resources })).map((r) => [r.resourceName, r.acls.length]))
  await step('admin: deleteAcls', async () => (await admin.deleteAcls({ filters: [acl] })).filterResponses.map((f) => f.matchingAcls.length))
  await step('admin: deleteTopics', () => admin.deleteTopics({ topics: ['js-admin'] }))
  await step('admin: deleteTopics, not there', () => admin.deleteTopics({ topics: ['js-nowhere'] }))
}

main(async () => {
  client('kafkajs', version)
  await admin.connect()
  await producers()
  await groups()
  await administration()
  await transactions()
  await admin.disconnect()
})
