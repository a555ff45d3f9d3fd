// The README's program, and where the native library of this process came from.
using System.Diagnostics;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Serving;

if (args is ["--probe"])
{
    Console.WriteLine($"started after {(DateTime.Now - Process.GetCurrentProcess().StartTime).TotalMilliseconds:F0} ms");
    return 0;
}

const int Images = 64;
string[] classNames = ["dark", "bright"];
byte[] pixels = new byte[Images * 16 * 16 * 3];
int[] labels = new int[Images];
new Random(1).NextBytes(pixels);
for (int i = 0; i < Images; i++)
{
    labels[i] = i % 2;
    for (int k = 0; k < 16 * 16 * 3; k++)
    {
        pixels[i * 16 * 16 * 3 + k] = (byte)(pixels[i * 16 * 16 * 3 + k] / 2 + 100 * labels[i]);
    }
}

byte[] photo = pixels[(16 * 16 * 3)..(2 * 16 * 16 * 3)];
string folder = Directory.CreateTempSubdirectory("consumer").FullName;
try
{
    // The lines of docs/package.md stand here.
    // A picture in a file, so that the image codec is used as well.
    Classification picture = await classifier.ClassifyAsync(File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "picture.png")));
    Console.WriteLine($"picture: {picture.Best.Name}");
    string[] loaded = OperatingSystem.IsWindows()
        ? [.. Process.GetCurrentProcess().Modules.Cast<ProcessModule>().Select(m => m.FileName)]
        : [.. File.ReadLines("/proc/self/maps").Select(l => l[(l.LastIndexOf(' ') + 1)..])];
    foreach (string library in new[] { "libhbn", "libdnnl", "libgomp" })
    {
        string? path = loaded.FirstOrDefault(p => p.Contains(library, StringComparison.Ordinal));
        Console.WriteLine($"{library}: {path ?? "not loaded"}");
    }

    return answer.Best.Name == "bright" ? 0 : 1;
}
finally
{
    Directory.Delete(folder, recursive: true);
}
