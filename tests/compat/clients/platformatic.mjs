// @platformatic/kafka: producers, transactions, group consumers, and what its admin client offers.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import zlib from 'node:zlib'

// The libraries are installed for the tests beside, where only `require` looks by NODE_PATH.
const require = createRequire(import.meta.url)
const { Admin, Consumer, Producer, ProduceAcks, stringDeserializers, stringSerializers } = require('@platformatic/kafka')
const { bootstrap, client, main, step: plainStep, until } = require('./steps')

const base = { clientId: 'compat', bootstrapBrokers: [bootstrap], retries: 5, retryDelay: 200 }
const admin = new Admin(base)

// The name of the protocol's error, which hides at the bottom of a heap of causes.
const nameOf = (error) => {
  const found = []
  const dig = (one) => {
    if (one) {
      found.push(one.apiId ?? one.code ?? one.name)
      dig(one.cause)
      one.errors?.forEach?.(dig)
      Object.values(one.errors ?? {}).forEach(dig)
    }
  }
  dig(error)
  return found.find((name) => !/^PLT_KFK/.test(name) && !/Error$/.test(name)) ?? found[0]
}
const step = (name, action) => plainStep(name, action, nameOf)

const create = async (topic, partitions = 1) => {
  await admin.createTopics({ topics: [topic], partitions, replicas: 1 })
  return topic
}
const messages = (topic, count, partition) => Array.from({ length: count }, (_, n) => ({ topic, key: `k${n}`, value: `value ${n}`, headers: { n: `${n}` }, ...(partition === undefined ? {} : { partition }) }))
const producer = (settings = {}) => new Producer({ ...base, serializers: stringSerializers, ...settings })
const consumer = (groupId, settings = {}) => new Consumer({ ...base, groupId, deserializers: stringDeserializers, sessionTimeout: 6_000, heartbeatInterval: 500, rebalanceTimeout: 6_000, maxWaitTime: 200, ...settings })

const read = async (topic, groupId, count, options = {}, withinMs = 20_000) => {
  const reader = consumer(groupId)
  const seen = []
  const stream = await reader.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false, ...options })
  stream.on('data', (message) => {
    seen.push(message)
  })
  const deadline = Date.now() + withinMs
  await until('messages', async () => seen.length >= count || Date.now() > deadline)
  for (const message of seen.slice(-1)) {
    await message.commit()
  }
  await reader.close(true)
  return seen
}
const lines = (seen) => seen.map((m) => `${m.offset} ${m.value}`)

const producers = async () => {
  for (const compression of ['none', 'gzip', 'snappy', 'lz4', ...(zlib.zstdCompressSync ? ['zstd'] : [])]) {
    const topic = await create(`plt-${compression}`)
    await step(`producer: ${compression}`, async () => {
      const out = producer()
      const { offsets } = await out.send({ messages: messages(topic, 200), compression, acks: ProduceAcks.ALL })
      await out.close()
      return offsets.map((o) => `${o.partition} ${o.offset}`)
    })
    await step(`consumer: ${compression}`, async () => {
      const seen = await read(topic, `plt-read-${compression}`, 200)
      return seen.length === 200 && seen.every((m, n) => m.value === `value ${n}` && m.offset === BigInt(n) && m.headers.get('n') === `${n}`)
    })
  }
  await step('producer: idempotent', async () => {
    const topic = await create('plt-idempotent')
    const out = producer({ idempotent: true })
    const said = []
    for (let n = 0; n < 3; n += 1) {
      const { offsets } = await out.send({ messages: messages(topic, 5) })
      said.push(`${offsets[0].offset}`)
    }
    await out.close()
    return said
  })
  await step('producer: acks=0', async () => {
    const topic = await create('plt-acks0')
    const out = producer()
    await out.send({ messages: messages(topic, 5), acks: ProduceAcks.NO_RESPONSE })
    const seen = await read(topic, 'plt-acks0', 5)
    await out.close()
    return seen.length
  })
  await step('producer: topic made in passing', async () => {
    const out = producer({ autocreateTopics: true })
    const { offsets } = await out.send({ messages: messages('plt-passing', 1) })
    await out.close()
    return `${offsets[0].offset}`
  })
  await step('producer: topic that is not there', async () => {
    const out = producer({ retries: 1 })
    try {
      await out.send({ messages: messages('plt-nowhere', 1) })
    } finally {
      await out.close()
    }
  })
}

const groups = async () => {
  const topic = await create('plt-grouped', 4)
  await step('groups: two members, one leaves', async () => {
    const shares = [0, 0]
    const members = []
    for (const n of [0, 1]) {
      const member = consumer('plt-pair')
      member.on('consumer:group:join', ({ assignments }) => {
        shares[n] = assignments.reduce((sum, a) => sum + a.partitions.length, 0)
      })
      members.push(member)
      const stream = await member.consume({ topics: [topic], mode: 'latest', autocommit: true })
      stream.on('data', () => {})
    }
    await until('two each', async () => shares.join() === '2,2')
    await members[0].close(true)
    await until('all for one', async () => shares[1] === 4)
    await members[1].close(true)
    return 'shared'
  })
  await step('groups: goes on from what was committed', async () => {
    const one = await create('plt-resumed')
    const out = producer()
    await out.send({ messages: messages(one, 5) })
    const first = await read(one, 'plt-resumed', 5)
    await out.send({ messages: messages(one, 3) })
    const second = await read(one, 'plt-resumed', 3)
    await out.close()
    return [first.length, lines(second)]
  })
  await step('groups: the protocol of KIP-848', async () => {
    const member = new Consumer({ ...base, groupId: 'plt-848', deserializers: stringDeserializers, groupProtocol: 'consumer', maxWaitTime: 200 })
    const stream = await member.consume({ topics: ['plt-resumed'], mode: 'earliest', autocommit: false })
    const seen = []
    stream.on('data', (message) => seen.push(message))
    await until('messages', async () => seen.length >= 8, 20_000)
    await member.close(true)
    return seen.length
  })
  await step('consumer: listOffsets', async () => {
    const one = consumer('plt-offsets')
    const found = await one.listOffsets({ topics: ['plt-resumed'], timestamp: -1n })
    await one.close(true)
    return [...found].map(([name, offsets]) => [name, offsets.map(String)])
  })
}

const transactions = async () => {
  const topic = await create('plt-transactions')
  await step('transactions: commit, abort, commit', async () => {
    const out = producer({ idempotent: true, transactionalId: 'plt-tx' })
    for (const [n, commit] of [true, false, true].entries()) {
      const transaction = await out.beginTransaction()
      await transaction.send({ messages: [`a${n}`, `b${n}`].map((value) => ({ topic, key: 'k', value })) })
      await (commit ? transaction.commit() : transaction.abort())
    }
    await out.close()
    return { committed: lines(await read(topic, 'plt-tx-committed', 4, { isolationLevel: 1 })), uncommitted: lines(await read(topic, 'plt-tx-all', 6, { isolationLevel: 0 })) }
  })
  await step('transactions: offsets sent along', async () => {
    const source = await create('plt-tx-source')
    const plain = producer()
    await plain.send({ messages: messages(source, 3) })
    await plain.close()
    const out = producer({ idempotent: true, transactionalId: 'plt-tx-offsets' })
    const reader = consumer('plt-tx-group')
    const seen = []
    const stream = await reader.consume({ topics: [source], mode: 'committed', fallbackMode: 'earliest', autocommit: false })
    stream.on('data', (message) => seen.push(message))
    await until('messages', async () => seen.length >= 3)
    const transaction = await out.beginTransaction()
    await transaction.addConsumer(reader)
    await transaction.send({ messages: [{ topic, key: 'k', value: 'seen' }] })
    await transaction.addOffset(seen.at(-1))
    await transaction.commit()
    await reader.close(true)
    await out.close()
    const [group] = await admin.listConsumerGroupOffsets({ groups: ['plt-tx-group'] })
    return group.topics.map((t) => t.partitions.map((p) => `${p.committedOffset}`))
  })
}

const administration = async () => {
  await step('admin: createTopics', async () => (await admin.createTopics({ topics: ['plt-admin'], partitions: 2, replicas: 1 })).map((t) => [t.name, t.partitions, t.replicas]))
  await step('admin: createTopics, again', async () => (await admin.createTopics({ topics: ['plt-admin'], partitions: 1, replicas: 1 })).length)
  await step('admin: createTopics, bad name', async () => (await admin.createTopics({ topics: ['not valid!'], partitions: 1, replicas: 1 })).length)
  await step('admin: listTopics', async () => (await admin.listTopics()).filter((name) => name.startsWith('plt-admin')))
  await step('admin: metadata', async () => {
    const found = await admin.metadata({ topics: ['plt-admin'] })
    return [found.brokers.size, found.topics.get('plt-admin').partitionsCount]
  })
  await step('admin: createPartitions', () => admin.createPartitions({ topics: [{ name: 'plt-admin', count: 3 }], validateOnly: false }))
  await step('admin: describeConfigs', async () => (await admin.describeConfigs({ resources: [{ resourceType: 2, resourceName: 'plt-admin', configurationKeys: ['retention.ms'] }] })).map((r) => r.configs.map((c) => [c.name, c.value])))
  await step('admin: incrementalAlterConfigs', () => admin.incrementalAlterConfigs({ resources: [{ resourceType: 2, resourceName: 'plt-admin', configs: [{ name: 'retention.ms', configOperation: 0, value: '70000' }] }], validateOnly: false }))
  await step('admin: alterConfigs', () => admin.alterConfigs({ resources: [{ resourceType: 2, resourceName: 'plt-admin', configs: [{ name: 'retention.ms', value: '60000' }] }], validateOnly: false }))
  const out = producer()
  await out.send({ messages: messages('plt-admin', 5, 0) })
  await out.close()
  await step('admin: listOffsets', async () => (await admin.listOffsets({ topics: [{ name: 'plt-admin', partitions: [{ partitionIndex: 0, timestamp: -1n }] }] })).map((t) => t.partitions.map((p) => `${p.offset}`)))
  await step('admin: deleteRecords', async () => (await admin.deleteRecords({ topics: [{ name: 'plt-admin', partitions: [{ partition: 0, offset: 2n }] }] })).map((t) => t.partitions.map((p) => `${p.lowWatermark}`)))
  await step('admin: alterConsumerGroupOffsets', () => admin.alterConsumerGroupOffsets({ groupId: 'plt-set', topics: [{ name: 'plt-admin', partitionOffsets: [{ partition: 0, offset: 3n }] }] }))
  await step('admin: listConsumerGroupOffsets', async () => (await admin.listConsumerGroupOffsets({ groups: ['plt-set'] })).map((g) => g.topics.map((t) => t.partitions.map((p) => `${p.committedOffset}`))))
  await step('admin: listGroups', async () => [...(await admin.listGroups({ types: ['classic'] })).values()].filter((g) => g.id === 'plt-set').map((g) => [g.id, g.state, g.groupType]))
  await step('admin: describeGroups', async () => [...(await admin.describeGroups({ groups: ['plt-set'] })).values()].map((g) => [g.id, g.state, g.members.size]))
  await step('admin: deleteConsumerGroupOffsets', async () => (await admin.deleteConsumerGroupOffsets({ groupId: 'plt-set', topics: [{ name: 'plt-admin', partitionIndexes: [0] }] })).length)
  await step('admin: deleteGroups', () => admin.deleteGroups({ groups: ['plt-set'] }))
  await step('admin: describeLogDirs', async () => (await admin.describeLogDirs({ topics: [{ name: 'plt-admin', partitions: [0] }] })).map((b) => b.results.map((r) => r.topics.map((t) => [t.name, t.partitions.length]))))
  const acl = { resourceType: 2, resourceName: 'plt-admin', resourcePatternType: 3, principal: 'User:someone', host: '*', operation: 3, permissionType: 3 }
  await step('admin: createAcls', () => admin.createAcls({ creations: [acl] }))
  await step('admin: describeAcls', async () => until('the ACL', async () => (await admin.describeAcls({ filter: { resourceType: 2, resourceName: 'plt-admin', resourcePatternType: 3, principal: null, host: null, operation: 1, permissionType: 1 } })).length))
  await step('admin: deleteAcls', async () => (await admin.deleteAcls({ filters: [{ resourceType: 2, resourceName: 'plt-admin', resourcePatternType: 3, principal: null, host: null, operation: 1, permissionType: 1 }] })).length)
  await step('admin: alterClientQuotas', async () => (await admin.alterClientQuotas({ entries: [{ entities: [{ entityType: 'user', entityName: 'plt' }], ops: [{ key: 'producer_byte_rate', value: 1000, remove: false }] }], validateOnly: false })).length)
  await step('admin: describeClientQuotas', async () => until('the quota', async () => (await admin.describeClientQuotas({ components: [{ entityType: 'user', matchType: 0, match: 'plt' }], strict: false })).length))
  await step('admin: deleteTopics', () => admin.deleteTopics({ topics: ['plt-admin'] }))
  await step('admin: deleteTopics, not there', () => admin.deleteTopics({ topics: ['plt-nowhere'] }))
}

main(async () => {
  client('@platformatic/kafka', JSON.parse(readFileSync(join(process.env.NODE_PATH, '@platformatic/kafka/package.json'))).version)
  await producers()
  await groups()
  await administration()
  await transactions()
  await admin.close()
})
