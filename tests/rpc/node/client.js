// A client of the service by @grpc/grpc-js and @grpc/proto-loader, from nothing but the .proto, or from reflection.
//
//   node client.js TARGET (PROTO_FOLDER | reflection) < JOB > ANSWERS
//
// JOB is {"messages": [{"id", "message" (base64), "session", "envelope"}]}; ANSWERS has what each way gave.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const [target, source] = process.argv.slice(2);
const job = JSON.parse(fs.readFileSync(0, 'utf8'));
const loading = { keepCase: true, longs: Number, enums: String, defaults: false, oneofs: true };
const insecure = grpc.credentials.createInsecure();

async function packages() {
  if (source !== 'reflection') {
    const files = ['authmilter/v1/authmilter.proto', path.join(__dirname, 'health.proto')];
    const definition = protoLoader.loadSync(files, { ...loading, includeDirs: [source] });
    return { services: [], found: grpc.loadPackageDefinition(definition) };
  }
  const { GrpcReflection } = require('grpc-js-reflection-client');
  const reflection = new GrpcReflection(target, insecure, {}, 'v1alpha');
  const services = await reflection.listServices();
  const ours = await reflection.getDescriptorBySymbol('authmilter.v1.VerifierService');
  const health = await reflection.getDescriptorBySymbol('grpc.health.v1.Health');
  const found = ours.getPackageObject(loading);
  found.grpc = health.getPackageObject(loading).grpc;
  return { services, found };
}

function request(item) {
  return { ...item, message: Buffer.from(item.message, 'base64'), options: { explain: true } };
}

function unary(client, name, given) {
  return new Promise((resolve) => {
    client[name](given, { deadline: Date.now() + 20000 }, (error, answer) =>
      resolve(error ? { code: error.code, details: error.details, status: statusOf(error) } : answer));
  });
}

function statusOf(error) {
  return error.metadata.get('grpc-status-details-bin').map((b) => b.toString('latin1')).join('');
}

function stream(client, items) {
  return new Promise((resolve, reject) => {
    const answers = {};
    const call = client.VerifyStream({ deadline: Date.now() + 20000 });
    call.on('data', (answer) => { answers[answer.id] = answer; });
    call.on('end', () => resolve(answers));
    call.on('error', reject);
    for (const item of items) call.write({ request: request(item) });
    call.write({ request: { id: 'wrong', session: { client_ip: 'nonsense' } } });
    call.end();
  });
}

function upload(client, item) {
  return new Promise((resolve, reject) => {
    const whole = request(item);
    const call = client.VerifyUpload({ deadline: Date.now() + 20000 }, (error, answer) =>
      (error ? reject(error) : resolve(answer)));
    const { message, ...start } = whole;
    call.write({ start });
    for (let at = 0; at < message.length; at += 1000) call.write({ chunk: message.subarray(at, at + 1000) });
    call.end();
  });
}

async function main() {
  const { services, found } = await packages();
  const options = { 'grpc.service_config': JSON.stringify(job.service_config) };
  const verifier = new found.authmilter.v1.VerifierService(target, insecure, options);
  const health = new found.grpc.health.v1.Health(target, insecure);
  const answers = { services, verify: [], upload: [] };
  answers.health = await unary(health, 'Check', { service: 'authmilter.v1.VerifierService' });
  for (const item of job.messages) {
    answers.verify.push(await unary(verifier, 'Verify', request(item)));
    answers.upload.push(await upload(verifier, item));
  }
  answers.stream = await stream(verifier, job.messages);
  answers.refused = await unary(verifier, 'Verify', { session: { client_ip: 'nonsense' } });
  answers.spf = await unary(verifier, 'CheckSpf', { client_ip: '192.0.2.10', mail_from: 'a@good.example' });
  process.stdout.write(JSON.stringify(answers));
  verifier.close();
  health.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
