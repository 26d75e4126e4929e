// What the Node.js programs share: where the broker is, and how a step is told. See steps.py.

exports.bootstrap = process.env.COMPAT_BOOTSTRAP
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

exports.client = (name, version) => print({ client: name, version })

// Reports what an action resolves to, or what `name` makes of its error.
exports.step = async (step, action, name) => {
  let outcome
  try {
    outcome = await withLimit(action())
  } catch (error) {
    if (process.env.COMPAT_TRACE) {
      process.stderr.write(`${step}: ${error.stack}\n`)
    }
    outcome = { error: name(error) }
  }
  print({ step, outcome: outcome === undefined ? null : outcome })
  return outcome
}

const withLimit = (promise) => {
  let timer
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('60 s are over')), 60_000)
  })
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer))
}

exports.until = async (what, condition, withinMs = 40_000) => {
  const deadline = Date.now() + withinMs
  for (;;) {
    const found = await condition()
    if (found) {
      return found
    }
    if (Date.now() > deadline) {
      throw new Error(`${what}: not within ${withinMs} ms`)
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

exports.main = (play) =>
  play().then(
    () => process.exit(0),
    (error) => {
      process.stderr.write(`${error.stack}\n`)
      process.exit(1)
    },
  )
