/** Ready-to-paste Python for Viam's SDK, with this machine's names in it. */
import type { Machine, Me, NewApiKey, Part } from "$lib/api/types";

const python = JSON.stringify; // Python and JSON write plain strings alike

export function snippets(me: Me | null, machine: Machine, part: Part, key: NewApiKey | null) {
  const id = key?.id ?? "<API key id>";
  const secret = key?.key ?? "<API key>";
  const grpc = me?.app.grpc_address ?? "http://127.0.0.1:8091";
  // An app that listens on this computer only has its machines here too.
  const isLocal = /\/\/(127\.|localhost|\[::1\])/.test(me?.app.web_address ?? "");
  const host = (isLocal ? null : part.info?.ips?.[0]) ?? "127.0.0.1";
  // viam-sdk 0.85 cannot dial plain gRPC with a key and without WebRTC; it tries WebRTC first and then goes on directly.
  const dialling = me?.app.tls ? "    options.dial_options.disable_webrtc = True" : "    options.dial_options.insecure = True  # same computer, no TLS; a word about WebRTC is fine";
  const login = `AppClient = ViamClient.create_from_dial_options(
        DialOptions(auth_entity=${python(id)},
                    credentials=Credentials(type="api-key", payload=${python(secret)}),
                    disable_webrtc=True, insecure=${me?.app.tls ? "False" : "True"}),
        app_url=${python(grpc.replace(/^https?:\/\//, ""))})`.replace("AppClient = ", "");
  return {
    robot: {
      title: "Talk to the machine",
      code: `import asyncio
from viam.components.camera import Camera
from viam.robot.client import RobotClient

async def main():
    options = RobotClient.Options.with_api_key(api_key=${python(secret)}, api_key_id=${python(id)})
${dialling}
    # ${machine.name}: the address that it prints as its robot API at start
    async with await RobotClient.at_address(${python(`${host}:${part.info?.port || 8080}`)}, options) as robot:
        print([r.name for r in robot.resource_names])
        images, _ = await Camera.from_robot(robot, "cam").get_images()
        open("picture.jpg", "wb").write(images[0].data)

asyncio.run(main())`,
    },
    data: {
      title: "Read its data",
      code: `import asyncio
from viam.app.viam_client import ViamClient
from viam.rpc.dial import Credentials, DialOptions
from viam.utils import create_filter

async def main():
    client = await ${login}
    data, count, last = await client.data_client.binary_data_by_filter(
        create_filter(robot_id=${python(machine.id)}), limit=10)
    for item in data:
        print(item.metadata.time_requested.ToDatetime(), item.metadata.file_name, list(item.metadata.capture_metadata.tags))
    client.close()

asyncio.run(main())`,
    },
    upload: {
      title: "Upload a picture",
      code: `import asyncio
from datetime import datetime
from viam.app.viam_client import ViamClient
from viam.rpc.dial import Credentials, DialOptions

async def main():
    client = await ${login}
    await client.data_client.binary_data_capture_upload(
        part_id=${python(part.id)}, component_type="rdk:component:camera", component_name="phone",
        method_name="ReadImage", file_extension=".jpg", binary_data=open("picture.jpg", "rb").read(),
        data_request_times=(datetime.now(), datetime.now()), tags=["example"])
    client.close()

asyncio.run(main())`,
    },
  };
}
