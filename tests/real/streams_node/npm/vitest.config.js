export default {
  // A busy machine is slow: a limit only ends a test that would hang.
  test: { include: ["conformance.test.js"], testTimeout: 60_000, cache: false },
}
