// node-oidc-provider, in memory or with Redis, for comparison. Access tokens are
// JWTs by ES256, and whoever comes to a page is signed in and consents.
//
//	node main.mjs PORT SECRET REDIRECT_URI [REDIS_PORT]
import { generateKeyPairSync } from 'node:crypto';
import Redis from 'ioredis';
import Provider from 'oidc-provider';

const [port, secret, redirectURI, redisPort] = process.argv.slice(2);
const api = 'https://api.example.com';
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwk = { ...privateKey.export({ format: 'jwk' }), kid: 'key', alg: 'ES256', use: 'sig' };

// RedisAdapter keeps what the interface of adapters asks for: one value for each
// artifact, and for a grant the list of its artifacts.
const redis = redisPort ? new Redis(Number(redisPort), '127.0.0.1') : undefined;
const grantable = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken']);

class RedisAdapter {
  constructor(model) { this.model = model; }
  key(id) { return `oidc:${this.model}:${id}`; }

  async upsert(id, payload, expiresIn) {
    const key = this.key(id);
    const multi = redis.multi();
    multi.set(key, JSON.stringify(payload), 'EX', expiresIn);
    if (grantable.has(this.model) && payload.grantId) {
      multi.rpush(`oidc:grant:${payload.grantId}`, key);
      multi.expire(`oidc:grant:${payload.grantId}`, expiresIn);
    }
    if (payload.uid) multi.set(`oidc:uid:${payload.uid}`, id, 'EX', expiresIn);
    await multi.exec();
  }

  async find(id) {
    const found = await redis.get(this.key(id));
    return found ? JSON.parse(found) : undefined;
  }

  async findByUid(uid) { return this.find(await redis.get(`oidc:uid:${uid}`)); }

  async consume(id) {
    const [found, ttl] = await Promise.all([this.find(id), redis.ttl(this.key(id))]);
    await redis.set(this.key(id), JSON.stringify({ ...found, consumed: Math.floor(Date.now() / 1000) }), 'EX', ttl);
  }

  async destroy(id) { await redis.del(this.key(id)); }

  async revokeByGrantId(grantId) {
    const keys = await redis.lrange(`oidc:grant:${grantId}`, 0, -1);
    await redis.del(...keys, `oidc:grant:${grantId}`);
  }
}

const provider = new Provider(`http://127.0.0.1:${port}`, {
  ...(redis && { adapter: RedisAdapter }),
  jwks: { keys: [jwk] },
  cookies: { keys: ['0123456789abcdef0123456789abcdef'] },
  clients: [{
    client_id: 'web', client_secret: secret, redirect_uris: [redirectURI], response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'], id_token_signed_response_alg: 'ES256',
  }],
  scopes: ['openid', 'offline_access', 'orders:read'],
  rotateRefreshToken: true,
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => api,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: 'orders:read', audience: api, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) {
    await next();
    return;
  }
  const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res);
  let result = { login: { accountId: 'alice' } };
  if (prompt.name === 'consent') {
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    grant.addResourceScope(api, 'orders:read');
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result, { mergeWithLastSubmission: true }));
});
provider.on('server_error', (_, error) => console.error(error));
const server = provider.listen(Number(port), '127.0.0.1');
server.keepAliveTimeout = 600_000; // or connections end between two rounds
