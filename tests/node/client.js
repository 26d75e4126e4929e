// What the Node.js clients under test share: a KafkaJS client that keeps stdout free for results.
// KAFKAJS_OPTIONS, where set, holds more of its options as JSON (ssl, sasl).

const { Kafka, logLevel } = require('kafkajs')

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'

const toStderr = () => ({ namespace, label, log }) =>
  process.stderr.write(`${label} ${namespace} ${JSON.stringify(log)}\n`)

exports.connectTo = (broker) =>
  new Kafka({
    clientId: 'kafkajs-e2e',
    brokers: [broker],
    logLevel: logLevel.WARN,
    logCreator: toStderr,
    retry: { retries: 8, initialRetryTime: 100 },
    ...JSON.parse(process.env.KAFKAJS_OPTIONS || '{}'),
  })

// Runs an async main; whatever fails ends the process with a failure.
exports.run = (main) =>
  main().catch((error) => {
    process.stderr.write(`${error.stack}\n`)
    process.exit(1)
  })
