import {
  firewallSchema,
  type Network,
  networkApplySchema,
  networkChangeIdSchema,
  networkSchema,
} from "../network-schema.ts";
import { body, json, noContent, type Router, type RouteSources } from "./route.ts";

export function addNetworkRoutes(router: Router, { nodeNetwork }: RouteSources): void {
  const { app } = router;
  app.openapi(
    router.route("network:read", {
      method: "get",
      path: "/network",
      responses: {
        200: json(networkSchema, "The node's networks, as configured and as they are."),
      },
    }),
    async (context) => context.json((await nodeNetwork.view()) as Network, 200),
  );
  app.openapi(
    router.route("network:read", {
      method: "get",
      path: "/network/firewall",
      responses: { 200: json(firewallSchema, "What is open, and the rules.") },
    }),
    async (context) => {
      const { open, ...rest } = await nodeNetwork.firewall();
      const ports = open.map(({ interfaces, networks, ...port }) => ({
        ...port,
        interfaces: interfaces === null ? null : [...interfaces],
        networks: [...networks],
      }));
      return context.json({ ...rest, open: ports }, 200);
    },
  );
  app.openapi(
    router.route("network:write", {
      method: "post",
      path: "/network/apply",
      operationId: "applyNetwork",
      summary: "Try other networks",
      description:
        "Needs the permission `network:write`. The node takes the former networks back unless the change is confirmed in time.",
      request: body(networkApplySchema),
      responses: { 202: json(networkChangeIdSchema, "It is carried out after this answer.") },
    }),
    async (context) => {
      const { config, confirmWithinSeconds } = context.req.valid("json");
      return context.json(await nodeNetwork.apply(config, confirmWithinSeconds), 202);
    },
  );
  app.openapi(
    router.route("network:write", {
      method: "post",
      path: "/network/confirm",
      operationId: "confirmNetwork",
      summary: "Keep the networks that are tried",
      request: body(networkChangeIdSchema),
      responses: noContent,
    }),
    async (context) => {
      await nodeNetwork.confirm(context.req.valid("json").id);
      return context.body(null, 204);
    },
  );
  app.openapi(
    router.route("network:write", {
      method: "post",
      path: "/network/revert",
      operationId: "revertNetwork",
      summary: "Take the former networks back",
      request: body(networkChangeIdSchema),
      responses: noContent,
    }),
    async (context) => {
      await nodeNetwork.revert(context.req.valid("json").id);
      return context.body(null, 204);
    },
  );
}
