/**
 * What api says and accepts about accounts.
 *
 *   POST   /session                   LogIn -> Session            [anyone]  sets the cookie too
 *   GET    /session                   -> SessionInfo              [account]
 *   DELETE /session                   -> 204                      [account]
 *   PUT    /session/password          PasswordChange -> 204       [account] ends other sessions
 */
import { z } from "zod";
import { type Permission, permissions } from "./permissions.ts";

const time = z.string().meta({ format: "date-time" });

export const permissionSchema = z.enum(permissions as [Permission, ...Permission[]]);

export const logInSchema = z
  .strictObject({
    user: z.string().min(1).max(64),
    password: z.string().min(1).max(1024),
    /** 5 minutes to 30 days. */
    lifetimeSeconds: z.int().min(300).max(2_592_000).optional(),
  })
  .meta({ id: "LogIn" });

export const sessionInfoSchema = z
  .object({
    user: z.string(),
    /** The name to show; the user's own where none was given. */
    displayName: z.string(),
    roles: z.array(z.string()),
    /** What the roles allow now, which a change of them changes at once. */
    permissions: z.array(permissionSchema),
    /** Nothing but a new password can be set until it is. */
    mustChangePassword: z.boolean(),
    expiresAt: time,
  })
  .meta({ id: "SessionInfo" });

export const sessionSchema = sessionInfoSchema
  .extend({ token: z.string().meta({ description: "For Authorization: Bearer." }) })
  .meta({ id: "Session" });

export const newPasswordSchema = z
  .string()
  .min(8, "A password has at least 8 characters.")
  .max(1024);

export const passwordChangeSchema = z
  .strictObject({ current: z.string().min(1).max(1024), next: newPasswordSchema })
  .meta({ id: "PasswordChange" });

export type LogIn = z.infer<typeof logInSchema>;
export type SessionInfo = z.infer<typeof sessionInfoSchema>;
export type Session = z.infer<typeof sessionSchema>;
