using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training.Serving;

namespace HpcBatchNorm.Tests.Serving;

/// <summary>The sample web service, started as a user starts it.</summary>
public sealed class WebServiceTests(ServingFixture fixture) : IClassFixture<ServingFixture>
{
    [Fact]
    public async Task WebService_With8Clients_AnswersEveryRequestAsOneThreadDoes()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        using Process service = Start("--urls", "http://127.0.0.1:0", "--Classifier:Backend", TrainingFixture.Backend, "--Classifier:Sessions", "2", "--Classifier:MaxBatch", "4");
        try
        {
            using var http = new HttpClient { BaseAddress = await AddressAsync(service, token) };
            JsonElement health = await http.GetFromJsonAsync<JsonElement>("/health", token);
            Assert.Equal(("ok", 3, 2), (health.GetProperty("status").GetString(), health.GetProperty("classes").GetInt32(), health.GetProperty("sessions").GetInt32()));
            using Classifier classifier = Classifier.Open(
                fixture.Checkpoint, new ClassifierOptions { Backend = TrainingFixture.Backend, Sessions = 2, MaxBatch = 4 });
            string[] expected = [.. fixture.Pictures.Select(p => JsonSerializer.Serialize(classifier.Classify(p).Top, JsonSerializerOptions.Web))];
            int right = 0;
            await Task.WhenAll(Enumerable.Range(0, 8).Select(client => Task.Run(async () =>
            {
                for (int i = 0; i < 50; i++)
                {
                    int picture = (3 * i + client) % expected.Length;
                    using var content = new ByteArrayContent(fixture.Pictures[picture]);
                    using HttpResponseMessage response = await http.PostAsync(new Uri("/classify", UriKind.Relative), content, token);
                    Assert.Equal(HttpStatusCode.OK, response.StatusCode);
                    Assert.Equal(expected[picture], await response.Content.ReadAsStringAsync(token));
                    Interlocked.Increment(ref right);
                }
            }, token)));
            Assert.Equal(400, right);

            using var nonsense = new StringContent("no image");
            using HttpResponseMessage refused = await http.PostAsync(new Uri("/classify", UriKind.Relative), nonsense, token);
            Assert.Equal(HttpStatusCode.BadRequest, refused.StatusCode);
            Assert.Contains("no JPEG", await refused.Content.ReadAsStringAsync(token), StringComparison.Ordinal);
        }
        finally
        {
            service.Kill();
            await service.WaitForExitAsync(CancellationToken.None);
        }
    }

    private Process Start(params string[] arguments)
    {
        string program = Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, "..", "..", "WebService", new DirectoryInfo(AppContext.BaseDirectory).Name, "WebService.dll"));
        return Process.Start(new ProcessStartInfo("dotnet", [program, fixture.Checkpoint, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
    }

    /// <summary>Kestrel chooses the port and logs it.</summary>
    private static async Task<Uri> AddressAsync(Process service, CancellationToken token)
    {
        List<string> lines = [];
        while (await service.StandardOutput.ReadLineAsync(token) is { } line)
        {
            lines.Add(line);
            int at = line.IndexOf("http://127.0.0.1:", StringComparison.Ordinal);
            if (at >= 0)
            {
                _ = service.StandardOutput.ReadToEndAsync(token); // so that its pipe never fills
                return new Uri(line[at..].Trim());
            }
        }

        throw new InvalidOperationException($"The service did not start: {string.Join('\n', lines)} {await service.StandardError.ReadToEndAsync(token)}");
    }
}
