// The MLP 16-32-8 with softmax, same weights as mlp.onnx; flattened once, row-major.
let layers = context.get("layers");
if (!layers) {
    const weights = global.get("weights");
    layers = {
        w1: Float32Array.from(weights.w1.flat()), b1: Float32Array.from(weights.b1),
        w2: Float32Array.from(weights.w2.flat()), b2: Float32Array.from(weights.b2),
    };
    context.set("layers", layers);
}
const event = msg.payload, values = event.values;
const hidden = new Float32Array(32), logits = new Float32Array(8);
for (let j = 0; j < 32; j++) {
    let sum = layers.b1[j];
    for (let i = 0; i < 16; i++) sum += values[i] * layers.w1[i * 32 + j];
    hidden[j] = sum > 0 ? sum : 0;
}
let best = 0;
for (let j = 0; j < 8; j++) {
    let sum = layers.b2[j];
    for (let i = 0; i < 32; i++) sum += hidden[i] * layers.w2[i * 8 + j];
    logits[j] = sum;
    if (sum > logits[best]) best = j;
}
let total = 0;
for (let j = 0; j < 8; j++) total += Math.exp(logits[j] - logits[best]);
msg.topic = "out" + msg.topic.slice(2);
msg.payload = {
    device_id: event.device_id, sensor: event.sensor, ts: event.ts, seq: event.seq, label: best, score: 1 / total,
};
return msg;
